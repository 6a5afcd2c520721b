"""What is decoded."""

from typing import NamedTuple

from jax import Array


class Decoded(NamedTuple):
    """Decoded sequences; of a beam search with an axis of the n best behind B.

    Behind a sequence `tokens` hold the end token, the first if there are several, or
    -1 if there is none.
    """

    tokens: Array  # (B, L) int32
    lengths: Array  # (B,), the end token counted
    scores: Array  # (B,), sums of log-probabilities; of a beam search penalised
