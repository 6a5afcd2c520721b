"""One sketch: is it right, on few steps and on many, and how long does a step take?

Without a GPU it is run in the interpreter, where that knows all its parts, and
lowered for CUDA.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.lines import error_text
from benchmarks.gpu.right import norm_error
from benchmarks.gpu.task import Task
from benchmarks.timing import median_iqr, sample


class Sketch(NamedTuple):
    """A module of `sketches`, the arguments of its `lstm`, and a problem."""

    module: str
    arguments: dict[str, Any]
    B: int
    T: int
    H: int
    interpreted: bool = True
    dtype: Any = jnp.bfloat16


SKETCHES = {
    "V3-512": Sketch("v3", {"C": 16}, 64, 1024, 512),
    "V1-256": Sketch("v1", {"C": 8}, 64, 1024, 256),
    "V1d-256": Sketch("v1d", {"C": 8}, 64, 1024, 256, interpreted=False),
    "V3-256": Sketch("v3", {"C": 8}, 64, 1024, 256),
    "V3-grid-768": Sketch("v3", {"C": 48, "grid": True}, 16, 1024, 768, False),
    "V3-grid-1024": Sketch(
        "v3", {"C": 64, "rows": 32, "grid": True}, 64, 512, 1024, False
    ),
    "V1d-256-no-fence": Sketch("v1d", {"C": 8, "fence": False}, 64, 1024, 256, False),
}
NAMES = tuple(SKETCHES)
FEW = 16  # steps of the first check
TOLERANCE = 2e-2  # of norms: bfloat16 between blocks, and an approximate tanh


def load(module: str) -> Callable[..., Any]:
    import importlib

    return importlib.import_module(f"benchmarks.gpu.sketches.{module}").lstm


def main(task: Task, name: str) -> None:
    sketch = SKETCHES[name]
    shared = {"sketch": name, "B": sketch.B, "T": sketch.T, "H": sketch.H}
    task.lines.shared |= {**shared, **sketch.arguments}
    device = task.device()
    if device is None:
        return
    if task.dry:
        dry(task, sketch)
        return
    from benchmarks.gpu.sketches import common

    run = jax.jit(partial(load(sketch.module), **sketch.arguments))
    for T in (FEW, sketch.T):
        args = common.draw(T, sketch.B, sketch.H, sketch.dtype)
        want = jax.jit(common.scan)(*args)
        got = jax.block_until_ready(run(*args))
        again = jax.block_until_ready(run(*args))
        found = [as_double(a) for a in (*got, *want)]
        errors = [norm_error(*pair) for pair in zip(found[:2], found[2:], strict=True)]
        same = all(map(np.array_equal, got, again))
        task.lines.write(steps=T, y_err=errors[0], c_err=errors[1], repeats=same)
        if not max(errors) <= TOLERANCE:
            task.lines.write(error=f"wrong at {T} steps, so not timed")
            return
        times = [
            sample(lambda args=args: jax.block_until_ready(run(*args)))
            for _ in range(20)
        ]
        ms, iqr = median_iqr(times)
        task.lines.write(steps=T, us_step=1e3 * ms / T, ms=ms, iqr_us=1e3 * iqr / T)


def as_double(a: Any) -> np.ndarray:
    return np.asarray(a).astype(np.float64)


def dry(task: Task, sketch: Sketch) -> None:
    from benchmarks.gpu.sketches import common

    lstm = load(sketch.module)
    shapes = jax.eval_shape(
        partial(common.draw, sketch.T, sketch.B, sketch.H, sketch.dtype)
    )
    lowered = jax.jit(partial(lstm, **sketch.arguments)).trace(*shapes)
    try:
        text = lowered.lower(lowering_platforms=("cuda",)).as_text()
        task.lines.write(lowered_for="cuda", characters=len(text))
    except Exception as error:
        task.lines.write(lowered_for="cuda", error=error_text(error))
    if sketch.interpreted:
        from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call
        from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

        size = {"v1": (3, 64, 64), "v3": (3, 16, 64)}[sketch.module]
        args = common.draw(*size, jnp.bfloat16)
        params = InterpretGPUParams(detect_races=True)
        got = lstm(*args, **{**sketch.arguments, "C": 2}, interpret=params)
        want = common.scan(*args)
        errors = [
            norm_error(as_double(a), as_double(b))
            for a, b in zip(got, want, strict=True)
        ]
        races = interpret_pallas_call.get_races().races_found
        row = {"y_err": errors[0], "c_err": errors[1], "races": races}
        task.lines.write(interpreted=True, **row)
    task.lines.write(error="no GPU")
