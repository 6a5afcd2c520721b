"""jaxseq mapped over the rows of an input with time first, as rollouts come."""

from typing import Any

import jax

from benchmarks.contender import Layer
from benchmarks.contenders import jaxseq
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem


def layer(problem: Problem, implementation: str | None = None) -> Layer:
    if problem.case.bidirectional:
        raise Unsupported("measured in one direction")
    whole = jaxseq.layer(problem, implementation)

    def apply(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
        row = lambda x, *masks: whole.apply(params, x, *masks)
        axes = (1, None if lengths is None else 0, None if resets is None else 1)
        return jax.vmap(row, axes, 1)(x, lengths, resets)

    return Layer(apply, whole.weights, whole.restore, time_major=True)
