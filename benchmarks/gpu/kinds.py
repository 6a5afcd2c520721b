"""Kinds of arithmetic, how right each has to be, and problems in each."""

import contextlib
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problem import Problem
from benchmarks.shapes import GATES, Shape


class Kind(NamedTuple):
    """Dtype of weights, input and output, and how float32 products are done."""

    name: str
    dtype: Any
    precision: str | None
    # largest ‖got - right‖ / ‖right‖ of any result. Sums over a thousand steps leave
    # float32 at 1e-6; TF32 and float16 keep 11 bits and bfloat16 8, in some libraries
    # of the sums too. Another equation or order of gates is off by 0.1 to 1.
    tolerance: float


FLOAT32 = Kind("float32", np.float32, "highest", 1e-4)
TF32 = Kind("tf32", np.float32, None, 1e-2)
BFLOAT16 = Kind("bfloat16", jnp.bfloat16, None, 8e-2)
FLOAT16 = Kind("float16", np.float16, None, 2e-2)


def precision(kind: Kind) -> Any:
    """The context in which float32 products have the precision of `kind`."""
    if kind.precision is None:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(kind.precision)


def draw(op: str, shape: Shape, kind: Kind, seed: int = 0) -> Problem:
    """A problem whose 16-bit values are those of both bfloat16 and float16."""
    B, T, D, H = shape
    Z = GATES[op] * H
    random = np.random.default_rng(seed)
    # the recurrence contracts at this scale, so rounding does not grow with T
    k = 1 / math.sqrt(H)
    uniform = lambda s: random.uniform(-k, k, s).astype(np.float32)
    normal = lambda s: random.standard_normal(s, np.float32)
    arrays = (normal((B, T, D)), uniform((D, Z)), uniform((H, Z)), uniform(Z))
    arrays = (*arrays, normal((B, T, H)))
    if np.dtype(kind.dtype).itemsize == 2:
        arrays = (a.astype(jnp.bfloat16).astype(np.float16) for a in arrays)
    return Problem(op, *(a.astype(kind.dtype) for a in arrays))


def cast(problem: Problem, dtype: Any) -> Problem:
    return Problem(problem.op, *(a.astype(dtype) for a in problem[1:]))
