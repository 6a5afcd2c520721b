"""Where the time of a gradient goes, by JAX's profiler."""

import re
import time
from statistics import median
from typing import Any

from benchmarks.contender import Contender
from benchmarks.profile import Kernel, busy, trace

CALLS = 5
ENGINE = re.compile(r"ffi_call|custom-call")
FORWARD, BACKWARD, SUMS, REST = "forward", "backward", "sums", "rest"


def parts_of(contender: Contender, calls: int = CALLS) -> dict[str, float]:
    """Milliseconds a call, the median of several: in the engine's forward and backward
    call, in those for the gradients of matrices and inputs, and outside all of them.
    """
    spent: list[float] = []

    def launch() -> Any:
        out = None
        for _ in range(calls):
            start = time.perf_counter()
            out = contender.launch()
            contender.wait(out)
            spent.append(1e3 * (time.perf_counter() - start))
        return out

    contender.wait(contender.launch())
    found = split(trace(contender._replace(launch=launch)))
    if len(found) != calls:  # an engine that makes other calls
        return {}
    each = [{n: busy(own) / 1e6 for n, own in one.items()} for one in found]
    pairs = zip(each, spent, strict=True)
    each = [one | {REST: whole - sum(one.values())} for one, whole in pairs]
    return {name: median(one[name] for one in each) for name in each[0]}


def split(kernels: list[Kernel]) -> list[dict[str, list[Kernel]]]:
    """The engine's of each call: the first, the second, and all that come after."""
    own = sorted((k for k in kernels if ENGINE.match(k.name)), key=lambda k: k.start)
    by_name: dict[str, list[Kernel]] = {}
    for k in own:
        by_name.setdefault(k.name, []).append(k)
    if len(by_name) < 2 or len({*map(len, by_name.values())}) > 1:
        return []
    calls = zip(*by_name.values(), strict=True)
    return [{FORWARD: [a], BACKWARD: [b], SUMS: more} for a, b, *more in calls]
