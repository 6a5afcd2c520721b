"""What is right: float64 on the device, itself checked against NumPy, and errors."""

from typing import Any

import jax
import numpy as np

from benchmarks.check import FLOAT64_TOLERANCE, relative_error, some_rows
from benchmarks.contenders.jaxseq import layer
from benchmarks.gpu.kinds import cast
from benchmarks.problem import Problem

Values = dict[str, np.ndarray]
CHECKED_STEPS = 64  # the equations look back only, so the first steps stand alone


def pick(y: Any) -> Any:
    """The first, middle and last sequences of a batch, of any library's array."""
    return y[np.array(sorted({0, len(y) // 2, len(y) - 1}))]


def right_values(problem: Problem, device: Any) -> Values:
    """Output and all gradients in float64; of y and x some sequences."""
    wide = cast(problem, np.float64)
    with jax.enable_x64(True):
        scan = layer(wide, "scan")

        def both(weights: Any, x: Any, dy: Any) -> Any:
            y, pullback = jax.vjp(scan.apply, weights, x)
            dw, dx = pullback(dy)
            return pick(y), pick(dx), dw

        args = jax.device_put((scan.weights, wide.x, wide.dy), device)
        y, x, weights = jax.tree.map(np.asarray, jax.jit(both)(*args))
    steps = CHECKED_STEPS
    # some_rows takes its own pick of a batch, so of one that was picked, all
    want = some_rows(wide._replace(x=pick(wide.x)[:, :steps]))
    error = relative_error(y[:, :steps], want)
    if not error <= FLOAT64_TOLERANCE:
        raise ArithmeticError(f"float64 is off the equations by {error:.1e}")
    return {"y": y, "x": x, **scan.restore(weights)}


def norm_error(got: np.ndarray, want: np.ndarray) -> float:
    """‖got - want‖ / ‖want‖; infinite for NaN or another shape."""
    if got.shape != want.shape:
        return float("inf")
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    return float(error) if np.isfinite(error) else float("inf")


def errors(got: Values, want: Values) -> dict[str, tuple[float, float]]:
    """By name, the largest difference over the largest value, and that of norms."""
    # flax has no b_hn, so no gradient of it; nothing else may be left out
    names = [n for n in want if n != "b_hn" or n in got]
    found = {}
    for name in ["y"] if set(got) == {"y"} else names:
        value = np.asarray(got[name]).astype(np.float64)
        found[name] = relative_error(value, want[name]), norm_error(value, want[name])
    return found


def worst(found: dict[str, tuple[float, float]]) -> tuple[str, float, float]:
    """The name and both errors of the result that is furthest off by its norm."""
    name = max(found, key=lambda n: found[n][1])
    return name, *found[name]
