"""Serves a character model over HTTP, to many sessions at once.

    POST   /sessions                     begins one: 201 {"id": "..."}
    POST   /sessions/ID {"text": "..."}  reads on: {"next": [["e", 0.12], ...]}
    DELETE /sessions/ID                  ends it: 204

Each session has a row of the model's state. As soon as one step is done the next one
begins, and reads a character of every session that has some left: sessions share steps
and do not wait for each other. One that is long unused makes room for another.

    python -m examples.serving.server [weights.safetensors] [--port 8000]
"""

import argparse
import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import jax
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.serving import model

SLOTS, MAX_CHARS, MAX_BYTES = 64, 1000, 10_000
IDLE = 300.0  # seconds
INDEX = {c: i for i, c in enumerate(model.CHARS)}


@dataclass
class Session:
    row: int
    used: float  # when
    fresh: bool = True
    left: list[int] = field(default_factory=list)  # tokens to read, the last one first
    found: asyncio.Future[Any] | None = None  # if it is reading


class Server:
    """Sessions, and the loop of steps for all of them.

    Args:
        read: the probabilities of what comes next, `(rows, tokens, fresh) -> (n, V)`.
        slots: how many sessions there may be.
    """

    def __init__(self, read: Callable[..., Any], slots: int = SLOTS):
        self.read, self.slots = read, slots
        self.free = list(range(slots))
        self.sessions: dict[str, Session] = {}
        self.some = asyncio.Event()

    async def begin(self, request: Request) -> Response:
        if not self.free:
            self.end_idle()
        if not self.free:
            text = f"all {self.slots} sessions are taken; try again later"
            raise HTTPException(503, text, {"Retry-After": "10"})
        name = secrets.token_urlsafe(16)
        self.sessions[name] = Session(self.free.pop(), monotonic())
        return JSONResponse({"id": name}, 201)

    async def next(self, request: Request) -> Response:
        tokens = await tokens_of(request)
        session = self.unused(request)
        session.used, session.left = monotonic(), tokens[::-1]
        session.found = asyncio.get_running_loop().create_future()
        self.some.set()
        p = await session.found
        best = np.argsort(-p)[:5]
        return JSONResponse({"next": [[model.CHARS[i], float(p[i])] for i in best]})

    async def end(self, request: Request) -> Response:
        self.unused(request)
        self.free.append(self.sessions.pop(request.path_params["name"]).row)
        return Response(status_code=204)

    def unused(self, request: Request) -> Session:
        session = self.sessions.get(request.path_params["name"])
        if session is None:
            raise HTTPException(404, "there is no such session, or it has ended")
        if session.found is not None:
            raise HTTPException(409, "the session is still reading")
        return session

    def end_idle(self) -> None:
        before = monotonic() - IDLE
        for name, session in [*self.sessions.items()]:
            if session.found is None and session.used < before:
                self.free.append(self.sessions.pop(name).row)

    async def run(self) -> None:
        while True:
            await self.some.wait()
            self.some.clear()
            while on := [s for s in self.sessions.values() if s.found is not None]:
                tokens, fresh = [s.left.pop() for s in on], [s.fresh for s in on]
                rows = [s.row for s in on]
                # Not in a thread, which would wait for the interpreter's lock while
                # requests are taken, far longer than a step takes.
                try:
                    found = self.read(*map(np.array, (rows, tokens, fresh)))
                except Exception as error:
                    for session in on:
                        answer(session, error)
                    continue
                for session, p in zip(on, found, strict=True):
                    session.fresh = False
                    if not session.left:
                        answer(session, p)
                await asyncio.sleep(0)  # requests that have come are taken

    @asynccontextmanager
    async def lifespan(self, app: Starlette):
        task = asyncio.create_task(self.run())
        yield
        task.cancel()


def answer(session: Session, found: Any) -> None:
    future, session.found = session.found, None
    if future is None or future.done():  # its client has gone
        return
    set_ = future.set_exception if isinstance(found, Exception) else future.set_result
    set_(found)


async def tokens_of(request: Request) -> list[int]:
    """The text of a request; what is wrong with it is the client's to know."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"a request may have {MAX_BYTES} bytes")
    try:
        text = json.loads(data)["text"]
    except (ValueError, TypeError, KeyError, RecursionError):
        text = None
    if not isinstance(text, str) or not text:
        raise HTTPException(400, 'expected {"text": "..."}, and not an empty text')
    if len(text) > MAX_CHARS:
        raise HTTPException(413, f"a text may have {MAX_CHARS} characters")
    if unknown := sorted(set(text) - set(INDEX)):
        raise HTTPException(400, f"characters that the model does not know: {unknown}")
    return [INDEX[c] for c in text]


async def error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def app_of(server: Server) -> Starlette:
    routes = [
        Route("/sessions", server.begin, methods=["POST"]),
        Route("/sessions/{name}", server.next, methods=["POST"]),
        Route("/sessions/{name}", server.end, methods=["DELETE"]),
    ]
    handlers: Any = {HTTPException: error}
    return Starlette(
        routes=routes, exception_handlers=handlers, lifespan=server.lifespan
    )


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description="Serves a character model.")
    parser.add_argument("weights", nargs="?", help="a file; drawn if there is none")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    try:
        drawn = options.weights is None
        params = model.init(jax.random.key(0)) if drawn else model.load(options.weights)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    server = Server(model.Model(params, SLOTS))
    uvicorn.run(app_of(server), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
