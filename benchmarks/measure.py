"""Checks and times the contenders of one case: a row for each."""

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from benchmarks.cases import Case, flops
from benchmarks.contender import Contender, Values
from benchmarks.contenders import Prepare, version
from benchmarks.device import cores
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, draw
from benchmarks.right import TOLERANCE, expected, precision, worst
from benchmarks.rows import AGAIN, Row
from benchmarks.timing import median_iqr, product_gflops, take_turns

REPEATS = 3  # compilations, of which the median counts
TIMED = ("compile_ms", "temp_mb", "first_ms", "second_ms")


def measure(
    case: Case,
    contenders: Mapping[str, Prepare],
    device: Any,
    rounds: int,
    repeats: int = REPEATS,
    tick: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Rows of all contenders; one whose numbers are wrong has no times.

    With no rounds it is checked who is right, and nothing is timed. With `repeats` 0
    contenders are compiled side by side, which takes less time and has none.
    """
    load = os.getloadavg()[0]
    problem = draw(case)
    want = expected(problem, device)
    rows, ready = prepare_all(problem, contenders, device, repeats)
    for name, contender in ready.items():
        rows[name] = verdict(contender, want, problem)
        tick()
    right = {n: c for n, c in ready.items() if rows[n]["reason"] is None}
    shared: Row = {"rounds": rounds, "load": load, "cores": cores()}
    if rounds and right:
        if "jaxseq" in right:
            right[AGAIN] = right["jaxseq"]
            rows[AGAIN] = rows["jaxseq"]
            ready[AGAIN] = ready["jaxseq"]
        with precision(case.dtype), jax.default_device(device):
            before = product_gflops(device, case.dtype)
            times = take_turns(right, rounds, device.platform != "cpu", tick=tick)
            after = product_gflops(device, case.dtype)
        # the floor is what the device can do, so its faster rate counts
        best = max(before, after)
        shared |= {"matmul_gflops": best, "matmul_drop": 1 - min(before, after) / best}
        shared["floor_ms"] = flops(case) / best / 1e6
        for name, found in times.items():
            ms, iqr = median_iqr(found)
            rows[name] = rows[name] | {"median_ms": ms, "iqr_ms": iqr}
    described = {n: {k: getattr(c, k) for k in TIMED} for n, c in ready.items()}
    empty = dict.fromkeys((*TIMED, "threads", "median_ms", "iqr_ms", "max_err"))
    return [
        {
            **{"contender": name, **case._asdict()},
            **empty,
            **described.get(name, {}),
            "threads": ready[name].threads or cores() if name in ready else None,
            **row,
            **shared,
            "versions": {n: version(n) for n in ("jax", name) if n != AGAIN},
        }
        for name, row in rows.items()
    ]


def prepare_all(
    problem: Problem, contenders: Mapping[str, Prepare], device: Any, repeats: int
) -> tuple[dict[str, Row], dict[str, Contender]]:
    """Contenders compiled, and for those that cannot be the reason."""

    def prepare(name: str) -> Contender | str:
        try:
            with precision(problem.case.dtype), jax.default_device(device):
                return contenders[name](problem, device, repeats or 1)
        except Unsupported as error:
            return str(error)
        except Exception as error:  # of a library, which must not end the run
            return error_text(error)

    # PyTorch has a pool of threads for each thread that calls it. With two pools their
    # threads sleep between calls instead of spinning, so only this thread calls it.
    in_pool = [n for n in contenders if not repeats and n != "torch"]
    with ThreadPoolExecutor(4) as pool:
        done = dict(zip(in_pool, pool.map(prepare, in_pool), strict=True))
    found = {n: done[n] if n in done else prepare(n) for n in contenders}
    ready = {n: c for n, c in found.items() if isinstance(c, Contender)}
    if not repeats:  # others were compiled at the same time
        none = {"compile_ms": None, "first_ms": None, "second_ms": None}
        ready = {n: c._replace(**none) for n, c in ready.items()}
    rows = {n: {"reason": c if isinstance(c, str) else None} for n, c in found.items()}
    return rows, ready


def error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def verdict(contender: Contender, want: Values, problem: Problem) -> Row:
    try:
        name, error = worst(contender.results(), want, problem)
    except Exception as error:
        return {"reason": error_text(error)}
    if error <= TOLERANCE[problem.case.dtype]:
        return {"max_err": error, "reason": None}
    return {
        "max_err": error if math.isfinite(error) else None,
        "reason": f"other numbers: {name} is off by {error:.1e} of its largest value",
    }
