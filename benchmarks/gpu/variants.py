"""What the loop costs: a plain scan, unrolled or not, beside jaxseq's own.

Run as `default`, and as `while` in a process whose XLA_FLAGS put loops into CUDA
graphs; both do the same.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jaxseq
from benchmarks.contenders.jaxseq import layer as jaxseq_layer
from benchmarks.gpu.contenders import Contender, lower
from benchmarks.gpu.kinds import BFLOAT16, draw
from benchmarks.gpu.lines import error_text as text
from benchmarks.gpu.right import errors, right_values, worst
from benchmarks.gpu.task import Task
from benchmarks.gpu.timing import time_rounds
from benchmarks.prepare import Layer
from benchmarks.problem import Problem
from benchmarks.shapes import Shape
from jaxseq._lstm import lstm_update

FULL, TINY = Shape(64, 1024, 512, 512), Shape(2, 6, 8, 8)
COMPILERS = 4


def step_layer(problem: Problem, unroll: int) -> Layer:
    """`jaxseq.lstm_step` in a scan: both products in the loop."""

    def apply(params: Any, x: Any) -> Any:
        wide = widen(params)

        def step(state: Any, x: Any) -> Any:
            narrow = jax.tree.map(lambda w: w.astype(x.dtype), wide)
            return jaxseq.lstm_step(narrow, state, x)

        start = jaxseq.lstm_zeros(params, x.shape[:1])
        xs = jnp.moveaxis(x, 1, 0)
        return jnp.moveaxis(lax.scan(step, start, xs, unroll=unroll)[1], 0, 1)

    return jaxseq_layer(problem)._replace(apply=apply)


def hoisted_layer(problem: Problem, unroll: int) -> Layer:
    """The input's product before the loop, products of 16 bits with float32 sums."""

    def apply(params: Any, x: Any) -> Any:
        wide = widen(params)
        dot = lambda a, w: jnp.matmul(
            a.astype(x.dtype), w.astype(x.dtype), preferred_element_type=jnp.float32
        )
        z_x = dot(jnp.moveaxis(x, 1, 0), wide.w_x) + wide.b

        def step(state: Any, z_x: Any) -> Any:
            state = lstm_update(z_x, dot(state.h, wide.w_h), state)
            return state, state.h.astype(x.dtype)

        start = jaxseq.lstm_zeros(params, x.shape[:1])
        return jnp.moveaxis(lax.scan(step, start, z_x, unroll=unroll)[1], 0, 1)

    return jaxseq_layer(problem)._replace(apply=apply)


def widen(params: Any) -> Any:
    """In float32 outside the loop, so that a loop sums gradients in it."""
    return jax.tree.map(lambda w: w.astype(jnp.float32), params)


def layers(problem: Problem, few: bool) -> dict[str, Layer]:
    found = {
        "jaxseq": jaxseq_layer(problem),
        "jaxseq scan": jaxseq_layer(problem, "scan"),
    }
    for unroll in (1, 8) if few else (1, 4, 8):
        found[f"hoisted, unroll={unroll}"] = hoisted_layer(problem, unroll)
    for unroll in () if few else (1, 8):
        found[f"step, unroll={unroll}"] = step_layer(problem, unroll)
    return found


def main(task: Task, name: str) -> None:
    device = task.device()
    if device is None:
        return
    shape, kind = (TINY if task.dry else FULL), BFLOAT16
    problem = draw("lstm", shape, kind)
    x, dy = jax.device_put((problem.x, problem.dy), device)
    shared = {"op": "lstm", **shape._asdict(), "dtype": kind.name}
    shared["flags"] = os.environ.get("XLA_FLAGS", "")
    with ThreadPoolExecutor(COMPILERS) as pool:
        right = pool.submit(right_values, problem, device)
        compiling: dict[str, dict[str, Any]] = {}
        for mode in ("forward", "gradient"):
            compiling[mode] = {}
            for n, each in layers(problem, name == "while").items():
                try:
                    compile = lower(each, x, dy, mode, kind)
                except Exception as error:
                    task.lines.write(**shared, mode=mode, variant=n, error=text(error))
                else:
                    compiling[mode][n] = pool.submit(compile)
    # nothing compiles while something is timed
    for mode, futures in compiling.items():
        rows: dict[str, Any] = {}
        ready: dict[str, Contender] = {}
        for n, future in futures.items():
            try:
                contender = future.result()
                _, largest, norm = worst(errors(contender.results(), right.result()))
            except Exception as error:
                rows[n] = {"error": text(error)}
                continue
            rows[n] = {"max_err": largest, "norm_err": norm}
            if norm <= kind.tolerance:
                ready[n] = contender
        times = time_rounds(ready, 0.05 if task.dry else 2.0) if ready else {}
        for n, row in rows.items():
            if n in times:
                ms, iqr, rounds = times[n]
                row |= {"us_step": 1e3 * ms / shape.T, "ms": ms, "rounds": rounds}
                row |= {"iqr_us": 1e3 * iqr / shape.T, "temp_mb": ready[n].temp_mb}
            task.lines.write(**shared, mode=mode, variant=n, **row)
