"""Checks and times the contenders for one op, mode and shape: a row for each."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.check import TOLERANCE, Values, worst
from benchmarks.contenders import Prepare, version
from benchmarks.device import Device
from benchmarks.errors import NoSuchCell
from benchmarks.prepare import Prepared
from benchmarks.problem import Problem
from benchmarks.shapes import flops
from benchmarks.timing import interleave, median_iqr, product, step_products

Row = dict[str, Any]


def measure(
    problem: Problem,
    mode: str,
    want: Values,
    contenders: Mapping[str, Prepare],
    device: Device,
    rounds: int,
) -> list[Row]:
    """Rows of all contenders; one whose numbers are wrong has no times."""
    rows, prepared = {}, {}
    for name, prepare in contenders.items():
        try:
            prepared[name] = prepare(problem, mode, device)
        except NoSuchCell as error:
            rows[name] = {"max_err": None, "reason": str(error)}
        else:
            rows[name] = verdict(prepared[name], want)
    right = {n: p.run for n, p in prepared.items() if rows[n]["reason"] is None}
    large, large_flops = product(device)
    steps, steps_flops = step_products(problem.op, problem.shape, device)
    # names with a space are no contender's
    runs = {**right, "large product": large, "step products": steps}
    times = interleave(runs, rounds)
    ms = {name: median_iqr(t) for name, t in times.items()}
    # the floor is what the device can do, so its fastest round counts
    rate = large_flops / min(times["large product"])
    shared = {
        "rounds": rounds,
        "floor_ms": flops(problem.op, mode, problem.shape) / rate,
        "matmul_gflops": rate / 1e6,
        "step_gflops": steps_flops / min(times["step products"]) / 1e6,
    }
    return [
        {
            "op": problem.op,
            "contender": name,
            "mode": mode,
            **problem.shape._asdict(),
            "dtype": "float32",
            "compile_ms": prepared[name].compile_ms if name in prepared else None,
            "median_ms": ms[name][0] if name in ms else None,
            "iqr_ms": ms[name][1] if name in ms else None,
            "temp_mb": prepared[name].temp_mb if name in prepared else None,
            **rows[name],
            **shared,
            "versions": {n: version(n) for n in ("jax", name)},
        }
        for name in contenders
    ]


def verdict(prepared: Prepared, want: Values) -> Row:
    name, error = worst(prepared.results(), want)
    if error <= TOLERANCE:
        return {"max_err": error, "reason": None}
    return {
        "max_err": error if math.isfinite(error) else None,
        "reason": f"other numbers: {name} is off by {error:.1e} of its largest value",
    }
