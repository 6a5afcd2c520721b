"""jaxseq against float64: outputs and all gradients, by cell, path and precision."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax

from benchmarks.contenders.jaxseq import layer
from benchmarks.gpu.contenders import lower
from benchmarks.gpu.kinds import BFLOAT16, FLOAT32, TF32, Kind, draw
from benchmarks.gpu.lines import error_text
from benchmarks.gpu.right import errors, right_values, worst
from benchmarks.gpu.task import Task
from benchmarks.shapes import Shape

OPS = ("lstm", "gru", "rnn")
PATHS = {"default": None, "scan": "scan"}
KINDS = {
    Shape(32, 256, 256, 256): (FLOAT32, BFLOAT16, TF32),
    Shape(3, 77, 40, 52): (FLOAT32, BFLOAT16),  # sizes that no tile divides
}
TINY = {Shape(2, 9, 5, 7): (FLOAT32, BFLOAT16, TF32)}


def main(task: Task) -> None:
    device = task.device()
    if device is None:
        return
    for shape, kinds in (TINY if task.dry else KINDS).items():
        with ThreadPoolExecutor(6) as pool:
            runs = {
                pool.submit(check, op, shape, kind, device): (op, kind)
                for op in OPS
                for kind in kinds
            }
            for run in as_completed(runs):
                op, kind = runs[run]
                row = {"op": op, **shape._asdict(), "dtype": kind.name}
                try:
                    for fields in run.result():
                        task.lines.write(**row, **fields)
                except Exception as error:
                    task.lines.write(**row, error=error_text(error))


def check(op: str, shape: Shape, kind: Kind, device: Any) -> list[dict[str, Any]]:
    problem = draw(op, shape, kind)
    want = right_values(problem, device)
    x, dy = jax.device_put((problem.x, problem.dy), device)
    rows = []
    for path, implementation in PATHS.items():
        row: dict[str, Any] = {"path": path, "tolerance": kind.tolerance}
        try:
            wanted = layer(problem, implementation)
            found = errors(lower(wanted, x, dy, "gradient", kind)().results(), want)
        except Exception as error:
            rows.append({**row, "error": error_text(error)})
            continue
        name, _, norm = worst(found)
        row |= {"max_err": {n: float(f"{e[0]:.3g}") for n, e in found.items()}}
        row |= {"worst": name, "norm_err": norm, "right": norm <= kind.tolerance}
        rows.append(row)
    return rows
