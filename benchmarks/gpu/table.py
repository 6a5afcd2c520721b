"""The table: jaxseq, Flax and cuDNN through JAX and PyTorch, in microseconds a step.

A row is timed only if its numbers are right. The shapes come in the order of their
weight, and each is written as soon as it is measured.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from benchmarks.gpu.contenders import LAYERS, Contender, lower
from benchmarks.gpu.floors import Rates, floors_us, measure_rates
from benchmarks.gpu.kinds import BFLOAT16, FLOAT16, FLOAT32, TF32, Kind, draw
from benchmarks.gpu.lines import error_text
from benchmarks.gpu.right import Values, errors, right_values, worst
from benchmarks.gpu.task import Task
from benchmarks.gpu.timing import time_rounds
from benchmarks.problem import Problem
from benchmarks.shapes import Shape

FULL = {
    "64x1024x512": Shape(64, 1024, 512, 512),
    "16x1024x768": Shape(16, 1024, 768, 768),
    "64x1024x256": Shape(64, 1024, 256, 256),
    "64x512x1024": Shape(64, 512, 1024, 1024),
    "256x256x512": Shape(256, 256, 512, 512),
    "1x2048x512": Shape(1, 2048, 512, 512),
}
TINY = {"2x6x8": Shape(2, 6, 8, 8), "1x5x8": Shape(1, 5, 8, 8)}
MODES = ("gradient", "forward")
CELL_SECONDS = 1.2  # for the rounds of all contenders of a row
COMPILERS = 4

Cells = dict[tuple[str, str], Contender]  # by mode and contender
Reasons = dict[tuple[str, str], str]


def order(shapes: dict[str, Shape]) -> list[tuple[str, Shape, Kind]]:
    """What is measured, the most important first."""
    first, *others = shapes.values()
    kinds = (BFLOAT16, FLOAT32)
    cells = [("lstm", first, kind) for kind in kinds]
    cells += [("lstm", s, BFLOAT16) for s in others]
    cells += [("gru", first, kind) for kind in kinds]
    cells += [("lstm", s, FLOAT32) for s in others]
    cells += [("gru", s, kind) for kind in kinds for s in others]
    return cells + [(op, s, TF32) for op in ("lstm", "gru") for s in shapes.values()]


def main(task: Task) -> None:
    # PyTorch first: what CUDA libraries it loads, JAX takes
    torch_error = torch_missing(task)
    device = task.device()
    if device is None:
        return
    task.lines.write(device=device.device_kind, torch=torch_error or "here")
    rates = measure_rates(task, device, (BFLOAT16, FLOAT32, TF32))
    slowest = 0.0
    for op, shape, kind in order(TINY if task.dry else FULL):
        left = task.left()
        if left < 1.1 * slowest + 2:
            task.lines.write(op=op, **shape._asdict(), dtype=kind.name, error="no time")
            continue
        try:
            measure(task, device, op, shape, kind, rates)
        except Exception as error:
            row = {"op": op, **shape._asdict(), "dtype": kind.name}
            task.lines.write(**row, error=error_text(error))
        slowest = max(slowest, left - task.left())


def torch_missing(task: Task) -> str | None:
    try:
        import torch
    except Exception as error:
        return error_text(error)
    if not task.dry and not torch.cuda.is_available():
        return "this PyTorch sees no GPU"
    return None


def measure(
    task: Task, device: Any, op: str, shape: Shape, kind: Kind, rates: Rates
) -> None:
    """Both modes of one op, shape and kind of arithmetic."""
    began = task.left()
    problem = draw(op, shape, kind)
    want, cells, reasons = prepare(problem, kind, device, task.dry)
    ready = task.left()
    for mode in MODES:
        named = {n: c for (m, n), c in cells.items() if m == mode}
        rows = {n: verdict(c, want, tolerance(n, kind)) for n, c in named.items()}
        right = {n: c for n, c in named.items() if rows[n]["reason"] is None}
        try:
            times = time_rounds(right, 0.05 if task.dry else CELL_SECONDS)
        except Exception as error:
            task.lines.write(op=op, mode=mode, error=error_text(error))
            times = {}
        rows |= {n: {"reason": r} for (m, n), r in reasons.items() if m == mode}
        shared = {"op": op, "mode": mode, **shape._asdict(), "dtype": kind.name}
        shared |= floors_us(op, mode, shape, kind, rates)
        for name, row in rows.items():
            row = {**shared, "contender": name, **row}
            if name in times:
                ms, iqr, rounds = times[name]
                row |= {"us_step": 1e3 * ms / shape.T, "iqr_us": 1e3 * iqr / shape.T}
                row |= {"ms": ms, "rounds": rounds, "temp_mb": named[name].temp_mb}
            task.lines.write(**row)
    task.lines.write(
        op=op,
        **shape._asdict(),
        dtype=kind.name,
        prepare_s=began - ready,
        measure_s=ready - task.left(),
    )


def tolerance(name: str, kind: Kind) -> float:
    return FLOAT16.tolerance if name == "torch float16" else kind.tolerance


def verdict(contender: Contender, want: Values, most: float) -> dict[str, Any]:
    try:
        name, largest, norm = worst(errors(contender.results(), want))
    except Exception as error:
        return {"reason": error_text(error)}
    row = {"max_err": largest, "norm_err": norm, "worst": name, "tolerance": most}
    wrong = f"other numbers: {name} is off by {norm:.1e}"
    return {**row, "reason": None if norm <= most else wrong}


def prepare(
    problem: Problem, kind: Kind, device: Any, dry: bool
) -> tuple[Values, Cells, Reasons]:
    """What is right, and all contenders compiled by several threads at once."""
    x, dy = jax.device_put((problem.x, problem.dy), device)
    cells: Cells = {}
    reasons: Reasons = {}
    jobs: dict[tuple[str, str], Callable[[], Contender]] = {}

    def collect(key: tuple[str, str], get: Callable[[], Any], into: Any) -> None:
        try:
            into[key] = get()
        except Exception as error:
            reasons[key] = error_text(error)

    for mode in MODES:
        for name, make in LAYERS.items():
            get = lambda make=make, mode=mode: lower(
                make(problem, kind), x, dy, mode, kind
            )
            collect((mode, name), get, jobs)
    on = "cpu" if dry else "cuda"
    with ThreadPoolExecutor(COMPILERS) as pool:
        right = pool.submit(right_values, problem, device)
        futures = {key: pool.submit(job) for key, job in jobs.items()}
        for mode in MODES:
            kinds = {"torch": kind}
            if kind is BFLOAT16:
                kinds["torch float16"] = FLOAT16
            for name, torch_kind in kinds.items():
                get = lambda k=torch_kind, mode=mode: torch_contender(
                    problem, mode, k, on
                )
                collect((mode, name), get, cells)
        for key, future in futures.items():
            collect(key, future.result, cells)
        return right.result(), cells, reasons


def torch_contender(problem: Problem, mode: str, kind: Kind, on: str) -> Contender:
    from benchmarks.gpu.torch import prepare

    return prepare(problem, mode, kind, on)
