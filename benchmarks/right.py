"""What is right: the equations in NumPy, and gradients in float64."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.contender import Values, gradient_of
from benchmarks.contenders.jaxseq import layer
from benchmarks.problem import Problem, Weights
from tests import reference

# The largest difference of an array over its largest value. A float32 product of a
# thousand terms and the pointwise functions after it are good to about 1e-6, and the
# weights keep that from growing over time, so 1e-4 leaves room for another order of
# summation or a faster tanh. TF32 and float16 keep 11 bits and bfloat16 8, in some
# libraries of the sums too. Another equation or order of gates is off by 0.1 to 1.
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 8e-2}
FLOAT64_TOLERANCE = 1e-10
# NumPy takes long: of longer sequences it checks the gradient's first steps alone
LONG, STEPS_OF_LONG = 1024, 64


def precision(dtype: str) -> Any:
    """The context in which float32 means float32, and TF32 what the device does."""
    exact = dtype == "float32"
    return (
        jax.default_matmul_precision("highest") if exact else contextlib.nullcontext()
    )


def gradient64(problem: Problem) -> Callable[..., Any]:
    """By `lax.scan`, for all problems of a case, so that it is compiled once."""
    return jax.jit(gradient_of(layer(problem, "scan").apply))


def expected(
    problem: Problem, device: Any, gradient: Callable[..., Any] | None = None
) -> Values:
    """The right results, float64, named as in `Contender.results`; of y some rows.

    `gradient` is that of `gradient64` for a problem of the same case, if there is one.
    """
    wide = jax.tree.map(lambda a: a.astype(np.float64), problem._replace(case=None))
    wide = wide._replace(
        case=problem.case, lengths=problem.lengths, resets=problem.resets
    )
    if problem.case.mode == "decode":
        return {"tokens": greedy(wide)}
    if not problem.case.mode.endswith("gradient"):
        return {"y": some_rows(wide)}
    with jax.enable_x64(True):
        scan = layer(wide, "scan")
        args = scan.weights, wide.x, wide.dy, wide.lengths, wide.resets
        found = (gradient or gradient64(wide))(*jax.device_put(args, device))
        y, weights, dx = jax.tree.map(np.asarray, found)
    steps = STEPS_OF_LONG if problem.case.T > LONG else problem.case.T
    if problem.case.bidirectional:
        steps = problem.case.T
    y = pick(masked(y, problem))
    rows = some_rows(wide, steps)
    error = relative_error(y[:, :steps], rows)
    if not error <= FLOAT64_TOLERANCE:
        raise ArithmeticError(
            f"jaxseq.{problem.case.op} in float64 is off its equations by {error:.1e}, "
            "so its gradients are no reference"
        )
    return {"y": y, "x": dx, **scan.restore(weights)}


def pick(y: np.ndarray) -> np.ndarray:
    """The first, middle and last sequences of a batch."""
    return y[sorted({0, len(y) // 2, len(y) - 1})]


def masked(y: np.ndarray, problem: Problem) -> np.ndarray:
    """Zero in the padding, where libraries leave different things."""
    if problem.lengths is None:
        return y
    valid = np.arange(problem.case.T) < problem.lengths[:, None]
    return np.where(valid[:, :, None], y, 0)


def cell_of(problem: Problem, weights: Weights) -> tuple[Any, Any, Any]:
    """The equations of a layer, its weights and its state of zeros."""
    op, zeros = problem.case.op, np.zeros(problem.case.H)
    params = (*weights, zeros) if op == "gru" else weights
    return getattr(reference, op), params, (zeros, zeros) if op == "lstm" else zeros


def some_rows(problem: Problem, steps: int | None = None) -> np.ndarray:
    """The output for some sequences, from the equations in NumPy."""
    rows = range(len(problem.x))
    found = []
    for b in pick(np.array(rows)):
        x = problem.x[b, :steps]
        length = None if problem.lengths is None else min(problem.lengths[b], len(x))
        resets = None if problem.resets is None else problem.resets[b]
        for i in range(problem.case.layers):
            both = 1 + problem.case.bidirectional
            outputs = []
            for weights in problem.weights[i * both : (i + 1) * both]:
                how = (*cell_of(problem, weights), x, length, resets)
                backward = len(outputs) == 1
                outputs.append(reference.sequence(*how, reverse=backward)[1])
            x = np.concatenate(outputs, -1)
        found.append(x)
    return np.stack(found)


def greedy(problem: Problem) -> np.ndarray:
    """The tokens of greedy decoding from token 0, a step at a time."""
    assert problem.embed is not None and problem.out is not None
    cell, params, zeros = cell_of(problem, problem.weights[0])
    state, token, tokens = zeros, 0, []
    for _ in range(problem.case.T):
        state, y = cell(params, state, problem.embed[[token]])
        token = int(np.argmax(y[0] @ problem.out))
        tokens.append(token)
    return np.tile(tokens, (problem.case.B, 1))  # all start alike


def worst(got: Values, want: Values, problem: Problem) -> tuple[str, float]:
    """The name and error of the result that is furthest from right."""
    if "y" in got:
        got = {**got, "y": pick(masked(np.asarray(got["y"]), problem))}
    # flax has no b_hn, so no gradient of it; nothing else may be left out
    names = [n for n in want if not n.startswith("b_hn") or n in got]
    errors = {n: relative_error(np.asarray(got[n]), want[n]) for n in names}
    name = max(errors, key=lambda n: errors[n])
    return name, errors[name]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference over the largest value; infinite for NaN."""
    if got.shape != want.shape:
        return float("inf")
    error = np.max(np.abs(got.astype(np.float64) - want)) / np.max(np.abs(want))
    return float(error) if np.isfinite(error) else float("inf")
