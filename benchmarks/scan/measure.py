"""Checks and times `lax.scan` and `jaxseq.scan` on one body: a row for each."""

import os
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.contender import Contender, compile_call, temp_mb
from benchmarks.contenders import version
from benchmarks.device import cores
from benchmarks.measure import error_text
from benchmarks.program import program
from benchmarks.right import TOLERANCE, precision, relative_error
from benchmarks.rows import Row
from benchmarks.scan.bodies import problem_of
from benchmarks.scan.cases import AGAIN, BODIES, OURS, PLAIN
from benchmarks.timing import fitting, median_iqr, take_turns

# what is compared in float64: a value alone is computed in other forms where rows are
# many, or in two halves
SMALL = {
    (3, 5, 8, 16): "gradient",
    (32, 3, 8, 160): "forward",
    (130, 3, 8, 16): "forward",
}
EXACT = 1e-12
COMPILES = 3  # of which the median counts


def measure(
    case: Case, device: Any, rounds: int, inexact: str | None = None
) -> list[Row]:
    """Rows of all contenders; one whose results are not those of `lax.scan` has no
    times. With no rounds nothing is timed, nor where float64 was `inexact`.
    """
    load = os.getloadavg()[0]
    with precision(case.dtype), jax.default_device(device):
        rows, ready, same = prepare(case, device)
        right = {n: c for n, c in ready.items() if rows[n]["reason"] is None}
        if inexact is not None:
            right = {}
            rows = {name: {**row, "reason": inexact} for name, row in rows.items()}
        if rounds and PLAIN in right:
            right[AGAIN], rows[AGAIN] = right[PLAIN], rows[PLAIN]
            ahead = device.platform != "cpu"
            calls, rounds = fitting(right, rounds, ahead)
            times = take_turns(right, rounds, ahead, calls=calls)
            for name, found in times.items():
                ms, iqr = median_iqr(found)
                rows[name] = rows[name] | {"median_ms": ms, "iqr_ms": iqr}
    shared = {"rounds": rounds, "load": load, "cores": cores(), "same": same}
    libraries = filter(None, ("jax", "jaxseq", BODIES.get(case.op)))
    shared["versions"] = {name: version(name) for name in libraries}
    empty = dict.fromkeys(("median_ms", "iqr_ms", "compile_ms", "temp_mb", "max_err"))
    return [
        {"contender": name, **case._asdict(), **empty, **row, **shared}
        for name, row in rows.items()
    ]


def prepare(
    case: Case, device: Any
) -> tuple[dict[str, Row], dict[str, Contender], bool]:
    """Rows and compiled contenders, and whether both scans are the same program."""
    problem = problem_of(case)
    arguments = jax.device_put(problem.arguments, device)
    rows, ready, programs, want = {}, {}, {}, None
    for name, run in problem.contenders.items():
        try:
            compiled, ms = compile_call(run, arguments, COMPILES)
            results = compiled(*arguments)
        except Exception as error:
            rows[name] = {"reason": error_text(error)}
            continue
        programs[name] = program(compiled)
        want = results if want is None else want
        rows[name] = verdict(results, want, TOLERANCE[case.dtype])
        rows[name] |= {"compile_ms": ms, "temp_mb": temp_mb(compiled)}
        launch = lambda compiled=compiled: compiled(*arguments)
        ready[name] = Contender(launch, dict)
    same = OURS in programs and programs[OURS] == programs.get(PLAIN)
    return rows, ready, same


def verdict(got: Any, want: Any, tolerance: float) -> Row:
    """How far results are from those of `lax.scan`, and whether that is too far."""
    if jax.tree.structure(got) != jax.tree.structure(want):
        return {"reason": "results of another structure"}
    errors = {}
    for (path, a), b in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        errors[name] = relative_error(np.asarray(a), np.asarray(b))
    name = max(errors, key=lambda n: errors[n])
    if errors[name] <= tolerance:
        return {"max_err": errors[name], "reason": None}
    reason = f"other numbers: {name} is off by {errors[name]:.1e} of its largest value"
    return {"max_err": None, "reason": reason}


def exact(body: str) -> str | None:
    """What differs from `lax.scan` in float64 at small sizes, if anything does."""
    for shape, mode in SMALL.items():
        reason = _exact(Case(body, mode, *shape, "float64"))
        if reason is not None:
            return reason
    return None


def _exact(case: Case) -> str | None:
    with jax.enable_x64(True):
        problem = problem_of(case)
        results = {}
        for name, run in problem.contenders.items():
            try:
                results[name] = jax.jit(run)(*problem.arguments)
            except Exception as error:
                return f"{name} in float64: {error_text(error)}"
            reason = verdict(results[name], results[PLAIN], EXACT)["reason"]
            if reason is not None:
                return f"{name} in float64: {reason}"
    return None
