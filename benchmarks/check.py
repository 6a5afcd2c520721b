"""What is right: the equations in NumPy, and float64 gradients."""

import jax
import numpy as np

from benchmarks.contenders.jaxseq import layer
from benchmarks.prepare import compile_layer
from benchmarks.problem import Problem
from tests import reference

# Errors are relative to the largest value of an array. A float32 product of a
# thousand terms and the pointwise functions after it are good to about 1e-6, and
# the weights keep that from growing over time, so 1e-4 leaves room for another order
# of summation or a faster tanh. Another equation is off by 1e-2 and more, and
# products rounded to 10 bits (TF32) by more than 5e-4.
TOLERANCE = 1e-4
FLOAT64_TOLERANCE = 1e-10

Values = dict[str, np.ndarray]


def expected(problem: Problem, mode: str) -> Values:
    """The right results of `mode`, float64, named as in `Prepared.results`."""
    if mode == "forward":
        return {"y": some_rows(problem)}
    wide = Problem(problem.op, *(a.astype(np.float64) for a in problem[1:]))
    cpu = jax.devices("cpu")[0]
    with jax.enable_x64(True):
        scan = compile_layer(layer(wide, "scan"), wide, mode, cpu)
        values = {k: np.asarray(v) for k, v in scan.results().items()}
    error = relative_error(pick(values["y"]), some_rows(problem))
    if not error <= FLOAT64_TOLERANCE:
        raise ArithmeticError(
            f"jaxseq.{problem.op} in float64 is off its equations by {error:.1e}, "
            "so its gradients are no reference"
        )
    return {**values, "y": some_rows(problem)}


def pick(y: np.ndarray) -> np.ndarray:
    """The first, middle and last sequences of a batch."""
    return y[sorted({0, len(y) // 2, len(y) - 1})]


def some_rows(problem: Problem) -> np.ndarray:
    """The output for some sequences, from the equations in NumPy."""
    params = [w.astype(np.float64) for w in problem.weights]
    zeros = np.zeros(problem.shape.H)
    state = (zeros, zeros) if problem.op == "lstm" else zeros
    cell = getattr(reference, problem.op)
    rows = pick(problem.x).astype(np.float64)
    return np.stack([cell(params, state, x)[1] for x in rows])


def worst(got: Values, want: Values) -> tuple[str, float]:
    """The name and error of the result that is furthest from right."""
    # flax has no b_hn, so no gradient of it; nothing else may be left out
    names = [n for n in want if n != "b_hn" or n in got]
    values = {**got, "y": pick(got["y"])}
    errors = {n: relative_error(np.asarray(values[n]), want[n]) for n in names}
    name = max(errors, key=lambda n: errors[n])
    return name, errors[name]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference over the largest value; infinite for NaN."""
    if got.shape != want.shape:
        return float("inf")
    error = np.max(np.abs(got.astype(np.float64) - want)) / np.max(np.abs(want))
    return float(error) if np.isfinite(error) else float("inf")
