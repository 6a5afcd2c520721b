"""Matrices as blocks along a diagonal; one that is whole is a single block.

N blocks are `(N, P, I, Q, O)` with P by Q gates. What a matrix reads is by gate, then
by block, and so is what it gives.
"""

from typing import Any, NamedTuple

from jax import Array

from jaxseq._engine.step import Step
from jaxseq._engine.types import Weights


class Blocks(NamedTuple):
    N: int
    P: int
    I: int
    Q: int
    O: int

    @property
    def turned(self) -> "Blocks":
        N, P, I, Q, O = self
        return Blocks(N, Q, O, P, I)


def blocks_of(w: Any) -> Blocks:
    if len(w.shape) == 5:
        return Blocks(*w.shape)
    N, I, O = (1, *w.shape)[-3:]
    return Blocks(N, 1, I, 1, O)


def in_blocks(w: Array) -> Array:
    """Each block as one matrix `(N, P I, Q O)`."""
    N, P, I, Q, O = blocks_of(w)
    return w.reshape(N, P * I, Q * O)


def blocks_in(step: Step, weights: Weights) -> tuple[Blocks, ...]:
    """Those of each matrix that a step calls."""
    return tuple(blocks_of(weights.w_h[k]) for k in step.called)
