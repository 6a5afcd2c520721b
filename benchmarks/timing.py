"""Times contenders in turns, so that a noisy machine is fair to all."""

import math
import random
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contender import Contender
from benchmarks.problem import float_of

SAMPLE_MS = 50.0  # of a sample; what takes less is called several times
TURNS_S = 12.0  # of all rounds, if there are no fewer than these
FEWEST = 3
MOST_AHEAD = 16  # calls launched before the first is awaited


def sample(contender: Contender, calls: int, ahead: bool = False) -> float:
    """Milliseconds a call, each awaited, or with `ahead` all launched and then awaited.

    An accelerator works while the next call is prepared, as it does in a training
    loop; a CPU has nothing left to prepare it with.
    """
    start = time.perf_counter()
    out = None
    for _ in range(calls):
        out = contender.launch()
        if not ahead:
            contender.wait(out)
    if ahead:
        contender.wait(out)
    return 1e3 * (time.perf_counter() - start) / calls


def take_turns(
    contenders: Mapping[str, Contender],
    rounds: int,
    ahead: bool = False,
    sample_ms: float = SAMPLE_MS,
    tick: Callable[[], object] = lambda: None,
    calls: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds a call of each contender in each round.

    In a round each has a stretch of its own: a call that is not timed, a sample, and
    a pause in which its threads go to sleep. The order is drawn anew in every round.
    How many `calls` make a sample is found by a few of them if it is not given.
    """
    if calls is None:
        calls = calls_of(contenders, ahead, sample_ms)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order, shuffle = list(contenders), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            contender = contenders[name]
            contender.wait(contender.launch())
            times[name].append(sample(contender, calls[name], ahead))
            time.sleep(0 if ahead else contender.pause)
        tick()
    return times


def calls_of(
    contenders: Mapping[str, Contender], ahead: bool, sample_ms: float
) -> dict[str, int]:
    """How many calls of each make a sample."""
    calls = {}
    for name, contender in contenders.items():
        contender.wait(contender.launch())
        ms = min(sample(contender, 1) for _ in range(3))
        calls[name] = calls_in(sample_ms, ms, ahead)
        time.sleep(0 if ahead else contender.pause)
    return calls


def calls_in(sample_ms: float, ms: float, ahead: bool) -> int:
    calls = max(1, math.ceil(sample_ms / ms))
    return min(calls, MOST_AHEAD) if ahead else calls


def fitting(
    contenders: Mapping[str, Contender],
    rounds: int,
    ahead: bool = False,
    seconds: float = TURNS_S,
) -> tuple[dict[str, int], int]:
    """How many calls of each make a sample, and as many rounds as fit into `seconds`.

    That is for contenders that have run already, and for calls that may be slow.
    """
    calls, turn = {}, 0.0
    for name, contender in contenders.items():
        ms = sample(contender, 1)
        if ms < 4 * SAMPLE_MS:  # a hiccup of a call that is fast must not decide
            ms = min(ms, sample(contender, 1), sample(contender, 1))
        calls[name] = calls_in(SAMPLE_MS, ms, ahead)
        turn += contender.pause + (1 + calls[name]) * ms / 1e3
    return calls, min(rounds, max(FEWEST, int(seconds / turn)))


def rounds_s(contenders: int, call: float, rounds: int) -> float:
    """A guess of how long the rounds of `fitting` take for calls of `call` seconds."""
    turn = contenders * (0.05 + call + max(SAMPLE_MS / 1e3, call))
    return min(rounds * turn, max(TURNS_S, FEWEST * turn))


def median_iqr(times: list[float]) -> tuple[float, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return float(median), float(high - low)


def product_gflops(device: Any, dtype: str) -> float:
    """The best rate of five large matrix products, the most this device does."""
    dot, operations = product(device, dtype)
    dot()
    found = Contender(dot, dict)
    return operations / min(sample(found, 1) for _ in range(5)) / 1e6


@lru_cache
def product(device: Any, dtype: str) -> tuple[Callable[[], Any], int]:
    N = 2048 if device.platform == "cpu" else 8192
    # random: products of zeros draw less power and run faster
    a, b = np.random.default_rng(0).standard_normal((2, N, N), np.float32)
    a, b = jax.device_put(
        (a.astype(float_of(dtype)), b.astype(float_of(dtype))), device
    )
    dot = jax.jit(jnp.dot).lower(a, b).compile()
    return lambda: dot(a, b), 2 * N**3
