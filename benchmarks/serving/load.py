"""Sessions that read text as fast as they are answered, and how long that takes."""

import asyncio
import time

import httpx
import numpy as np

from examples.serving.model import CHARS


async def reachable(client: httpx.AsyncClient, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            await client.get("/")
            return
        except httpx.ConnectError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


async def read(
    client: httpx.AsyncClient, seed: int, chars: int, start: float, end: float
) -> list[float]:
    """Begins a session, reads, and ends it; the latencies after the start, in ms.

    It reads once after the start, however late that is.
    """
    rng, found = np.random.default_rng(seed), []
    session = "/sessions/" + (await client.post("/sessions")).json()["name"]
    while not found or time.perf_counter() < end:
        text = "".join(CHARS[i] for i in rng.integers(0, len(CHARS), chars))
        before = time.perf_counter()
        response = await client.post(session, content=text)
        if before >= start:
            found.append(1e3 * (time.perf_counter() - before))
        response.raise_for_status()
    (await client.delete(session)).raise_for_status()
    return found


async def load(
    url: str, sessions: int, chars: int, seconds: float, warm: float = 0.5
) -> list[float]:
    """Latencies of all requests of so many sessions at the same time, in ms."""
    limits = httpx.Limits(max_connections=sessions)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await reachable(client)
        start = time.perf_counter() + warm
        each = (read(client, i, chars, start, start + seconds) for i in range(sessions))
        return [ms for some in await asyncio.gather(*each) for ms in some]
