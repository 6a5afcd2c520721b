"""`python -m benchmarks profile`: where the time of a contender goes, on a CPU.

XLA's own trace of a call: how many kernels it runs a step, and the time a step in
products, in copies, in the other arithmetic, and in none of them. Kernels of all
threads count, so their sum can exceed the time a step. That time is of a call that is
not traced; what a call spends before and after its kernels is in it alone.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData, ProfileOptions

from benchmarks.cases import Case
from benchmarks.contender import Contender
from benchmarks.contenders import Prepare
from benchmarks.device import commit, find_device
from benchmarks.errors import Unsupported
from benchmarks.problem import draw
from benchmarks.rows import append
from benchmarks.timing import median_iqr, sample

KINDS = {
    "product": r"ynn|dot|custom-call",
    "copy": r"copy|(wrapped_)?(concatenate|slice|dynamic|transpose|broadcast)",
    "control": r"while|call|conditional",
}


class Kernel(NamedTuple):
    name: str
    start: float  # ns
    stop: float
    own: float  # without the kernels inside it


def kind(name: str) -> str:
    return next((k for k, v in KINDS.items() if re.match(v, name)), "arithmetic")


def own_times(events: Iterable[tuple[str, float, float]]) -> Iterator[Kernel]:
    """Kernels of one thread, from `(name, start, stop)`, without what they contain."""
    open_: list[list[Any]] = []
    for name, start, stop in sorted(events, key=lambda e: (e[1], -e[2])):
        while open_ and open_[-1][2] <= start:
            yield Kernel(*open_.pop())
        if open_:
            open_[-1][3] -= stop - start
        open_.append([name, start, stop, stop - start])
    while open_:
        yield Kernel(*open_.pop())


def trace(prepared: Contender) -> list[Kernel]:
    """The kernels of one call."""
    options = ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 2, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            prepared.wait(prepared.launch())
        [path] = Path(folder).rglob("*.xplane.pb")
        data = ProfileData.from_file(str(path))
    kernels: list[Kernel] = []
    for plane in data.planes:
        for line in plane.lines:
            # XLA marks an event that is a kernel's with its operation
            kernels += own_times(
                (e.name, e.start_ns, e.start_ns + e.duration_ns)
                for e in line.events
                if any(name == "hlo_op" for name, _ in e.stats)
            )
    return kernels


def busy(kernels: Iterable[Kernel]) -> float:
    """Nanoseconds in which at least one kernel ran."""
    total, until = 0.0, 0.0
    for k in sorted(kernels, key=lambda k: k.start):
        total += max(0.0, k.stop - max(k.start, until))
        until = max(until, k.stop)
    return total


def profile(prepared: Contender, T: int, calls: int) -> dict[str, float]:
    """A step, on average over `calls`: kernels, and µs by kind."""
    prepared.wait(prepared.launch())
    us: dict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for _ in range(calls):
        kernels = trace(prepared)
        for k in kernels:
            us[kind(k.name)] += k.own / 1e3
            count[kind(k.name)] += 1
        us["none"] -= busy(k for k in kernels if kind(k.name) != "control") / 1e3
        ends = [k.stop for k in kernels]
        us["none"] += (max(ends) - min(k.start for k in kernels)) / 1e3
    wall, _ = median_iqr([sample(prepared, 1) for _ in range(20)])
    steps = T * calls
    return {
        "us_per_step": 1e3 * wall / T,
        "kernels_per_step": (count.total() - count["control"]) / steps,
        **{f"us_{k}": us[k] / steps for k in ("product", "arithmetic", "copy", "none")},
    }


def profile_all(
    cases: Sequence[Case], contenders: Mapping[str, Prepare], calls: int, path: Path
) -> None:
    device = find_device("cpu")
    stamp = {"commit": commit(), "run": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"}
    print(f"{'a step':48} µs  kernels  product  arith  copy  none")
    for case in cases:
        problem = draw(case)
        for name, prepare in contenders.items():
            try:
                prepared = prepare(problem, device, 1)
            except Unsupported as error:
                print(f"{case!s:32} {name:15} {error}")
                continue
            row = profile(prepared, case.T, calls)
            line = {**case._asdict(), "contender": name, **row}
            append(path, [line], jax=jax.__version__, **stamp)
            figures = "  ".join(f"{v:6.1f}" for v in row.values())
            print(f"{case!s:32} {name:15} {figures}", flush=True)
