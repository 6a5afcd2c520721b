"""What is decoded."""

from typing import NamedTuple

from jax import Array


class Decoded(NamedTuple):
    """Decoded sequences; of a beam search with an axis of the n best behind B.

    Behind a sequence `tokens` hold the end token, the first if there are several, or
    -1 if there is none.

    Fields:
        tokens: int32 `(B, L)`, L being `max_length`.
        lengths: of the sequences, the end token counted, int32 `(B,)`.
        scores: sums of log-probabilities, `(B,)`; of a beam search penalised.
    """

    tokens: Array
    lengths: Array
    scores: Array
