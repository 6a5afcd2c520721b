"""What every contender is given: the same input, weights and cotangent."""

import math
from typing import NamedTuple

import numpy as np

from benchmarks.shapes import GATES, Shape


class Problem(NamedTuple):
    """Float32 arrays in jaxseq's layout; gates lstm i f g o, gru r z n."""

    op: str
    x: np.ndarray  # (B, T, D)
    w_x: np.ndarray  # (D, gates H)
    w_h: np.ndarray  # (H, gates H)
    b: np.ndarray  # (gates H,); b_hn of the gru is zeros
    dy: np.ndarray  # (B, T, H), the cotangent of the output

    @property
    def shape(self) -> Shape:
        B, T, D = self.x.shape
        return Shape(B, T, D, self.w_h.shape[0])

    @property
    def weights(self) -> tuple[np.ndarray, ...]:
        """Those of jaxseq: `w_x`, `w_h`, `b` and, for the gru, `b_hn` of zeros."""
        zeros = np.zeros(self.shape.H, self.b.dtype)
        return self[2:5] + ((zeros,) if self.op == "gru" else ())


def draw(op: str, shape: Shape, seed: int = 0) -> Problem:
    B, T, D, H = shape
    Z = GATES[op] * H
    random = np.random.default_rng(seed)
    # the recurrence contracts at this scale, so rounding does not grow with T
    k = 1 / math.sqrt(H)
    w_x, w_h, b = (random.uniform(-k, k, s) for s in ((D, Z), (H, Z), (Z,)))
    x, dy = random.standard_normal((B, T, D)), random.standard_normal((B, T, H))
    return Problem(op, *(a.astype(np.float32) for a in (x, w_x, w_h, b, dy)))


def permute(w: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Puts the gates, blocks of the last axis, in another order."""
    gates = np.split(np.asarray(w), len(order), axis=-1)
    return np.concatenate([gates[i] for i in order], axis=-1)
