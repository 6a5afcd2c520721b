"""Times contenders side by side in rounds, as many as fit the time there is."""

import math
import random
import time
from collections.abc import Mapping

from benchmarks.gpu.contenders import Contender
from benchmarks.timing import median_iqr

SAMPLE_MS = 4.0  # of a sample; what takes less is launched several times
MOST_CALLS = 16
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25


def sample(contender: Contender, calls: int) -> float:
    """Milliseconds a call, of `calls` launched one after another and then awaited.

    So a library that launches ahead may, as it does in a training loop.
    """
    start = time.perf_counter()
    out = None
    for _ in range(calls):
        out = contender.launch()
    contender.wait(out)
    return 1e3 * (time.perf_counter() - start) / calls


def time_rounds(
    contenders: Mapping[str, Contender], seconds: float
) -> dict[str, tuple[float, float, int]]:
    """Median and interquartile range in milliseconds, and how many rounds."""
    stop = time.monotonic() + seconds
    calls = {}
    for name, contender in contenders.items():
        contender.wait(contender.launch())
        ms = sample(contender, 1)
        calls[name] = min(MOST_CALLS, max(1, math.ceil(SAMPLE_MS / ms)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order, shuffle = list(contenders), random.Random(0).shuffle
    for done in range(MOST_ROUNDS):
        now = time.monotonic()
        if now > stop + seconds or (now > stop and done >= FEWEST_ROUNDS):
            break
        shuffle(order)
        for name in order:
            times[name].append(sample(contenders[name], calls[name]))
    return {n: (*median_iqr(t), len(t)) for n, t in times.items() if t}
