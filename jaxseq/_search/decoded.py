"""What is decoded."""

from typing import NamedTuple

from jax import Array

NONE = -1  # no token


class Decoded(NamedTuple):
    """Decoded sequences; of a beam search with an axis of the n best behind B."""

    tokens: Array  # (B, L) int32, filled with the end token behind it
    lengths: Array  # (B,), the end token counted
    scores: Array  # (B,), sums of log-probabilities; of a beam search penalised
