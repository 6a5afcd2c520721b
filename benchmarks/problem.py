"""What every contender is given: the same input, weights, masks and cotangent."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.cases import GATES, VOCABULARY, Case


class Weights(NamedTuple):
    """Of one layer and direction, in jaxseq's layout; gates i f g o and r z n."""

    w_x: np.ndarray  # (D, gates H)
    w_h: np.ndarray  # (H, gates H)
    b: np.ndarray  # (gates H,); b_hn of the gru is zeros


class Problem(NamedTuple):
    case: Case
    x: np.ndarray  # (B, T, D)
    weights: tuple[Weights, ...]  # from the input up, of each layer both directions
    dy: np.ndarray  # (B, T, H) or (B, T, 2H), the cotangent of y; zero in padding
    lengths: np.ndarray | None = None  # (B,)
    resets: np.ndarray | None = None  # (B, T)
    embed: np.ndarray | None = None  # (VOCABULARY, D), of a language model
    out: np.ndarray | None = None  # (H, VOCABULARY)


def float_of(dtype: str) -> Any:
    return {"tf32": np.float32, "bfloat16": jnp.bfloat16}.get(dtype) or np.dtype(dtype)


def draw(case: Case, seed: int = 0) -> Problem:
    B, T, D, H = case[2:6]
    Z, both = GATES[case.op] * H, 1 + case.bidirectional
    random, dtype = np.random.default_rng(seed), float_of(case.dtype)

    def rounded(a: np.ndarray) -> np.ndarray:
        # to what bfloat16 and float16 both have, if the case has 16 bits
        narrow = a.astype(np.float32)
        if np.dtype(dtype).itemsize == 2:
            narrow = narrow.astype(jnp.bfloat16).astype(np.float16)
        return narrow.astype(dtype)

    # the recurrence contracts at this scale, so rounding does not grow with T
    k = 1 / math.sqrt(H)
    uniform = lambda *shape: rounded(random.uniform(-k, k, shape))
    normal = lambda *shape: rounded(random.standard_normal(shape))
    weights = tuple(
        Weights(uniform(width, Z), uniform(H, Z), uniform(Z))
        for width in [D] + [both * H] * (case.layers - 1)
        for _ in range(both)
    )
    x, dy = normal(B, T, D), normal(B, T, both * H)
    found = Problem(case, x, weights, dy)
    if case.ragged:
        lengths = random.integers(1, T + 1, B, np.int32)
        lengths[0] = T
        dy[np.arange(T) >= lengths[:, None]] = 0
        found = found._replace(lengths=lengths)
    if case.resets:
        found = found._replace(resets=random.random((B, T)) < 0.05)
    if case.mode == "decode":
        # of a spread at which the second best token is well behind the best
        embed, out = normal(VOCABULARY, D), normal(H, VOCABULARY)
        found = found._replace(embed=embed, out=out)
    return found


def permute(w: Any, order: tuple[int, ...]) -> np.ndarray:
    """Puts the gates, blocks of the last axis, in another order."""
    gates = np.split(np.asarray(w), len(order), axis=-1)
    return np.concatenate([gates[i] for i in order], axis=-1)
