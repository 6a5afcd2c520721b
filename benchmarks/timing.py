"""Times several functions side by side, so that a noisy machine is fair to all."""

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device import Device
from benchmarks.shapes import GATES, Shape

SHORTEST_MS = 5.0  # of a sample; what takes less is called several times


def sample(run: Callable[[], Any], calls: int = 1) -> float:
    """Milliseconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return 1e3 * (time.perf_counter() - start) / calls


def interleave(
    runs: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each function in each round, one sample of each a round.

    The order is drawn anew in every round, so that none always comes after the
    same other one and what it leaves behind in caches and threads.
    """
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = max(1, math.ceil(SHORTEST_MS / sample(run)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(sample(runs[name], calls[name]))
    return times


def median_iqr(times: list[float]) -> tuple[float, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return float(median), float(high - low)


def product(device: Device) -> tuple[Callable[[], Any], int]:
    """A large product, the best this device does, and its operations."""
    N = 2048 if device.platform == "cpu" else 8192
    a, b = np.random.default_rng(0).standard_normal((2, N, N), np.float32)
    a, b = jax.device_put((a, b), device)
    dot = jax.jit(jnp.dot).lower(a, b).compile()
    return lambda: jax.block_until_ready(dot(a, b)), 2 * N**3


def step_products(
    op: str, shape: Shape, device: Device
) -> tuple[Callable[[], Any], int]:
    """The recurrent products of a sequence one after another, and their operations."""
    B, T, _, H = shape
    G = GATES[op]
    random = np.random.default_rng(0)
    w = random.uniform(-1, 1, (H, G * H)).astype(np.float32) / math.sqrt(H)
    h = random.standard_normal((B, H), np.float32)

    def loop(w: jax.Array, h: jax.Array) -> jax.Array:
        # the mean over the gates makes each step wait for the one before
        step = lambda h, _: (h0 + (h @ w).reshape(B, G, H).mean(1), None)
        h0 = h
        return jax.lax.scan(step, h, None, length=T)[0]

    w, h = jax.device_put((w, h), device)
    compiled = jax.jit(loop).lower(w, h).compile()
    return lambda: jax.block_until_ready(compiled(w, h)), 2 * B * T * H * G * H
