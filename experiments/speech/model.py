"""The recogniser: a bidirectional LSTM that says at each step a digit or nothing."""

from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn
from experiments.speech.settings import Settings

BLANK = 0  # a digit d is the token d + 1
TOKENS = 11


class Recogniser(nnx.Module):
    """Maps sounds `(B, T, D)` to logits of blank and digits, `(B, T, 11)`."""

    def __init__(self, settings: Settings, features: int, *, rngs: nnx.Rngs):
        H, rate = settings.hidden, settings.dropout
        self.recurrent = jaxseq.nn.LSTM(
            features, H, num_layers=settings.layers, bidirectional=True,
            dropout=rate, rngs=rngs,
        )  # fmt: skip
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(2 * H, TOKENS, rngs=rngs)

    def __call__(self, x: Array, lengths: Array) -> Array:
        _, y = self.recurrent(x, lengths=lengths)
        return self.head(self.dropout(y))


def loss(model: Recogniser, batch: Any) -> tuple[Array, Array]:
    """The sum of the losses of CTC, and the number of digits."""
    logits = model(batch.x, batch.lengths)
    outside = jnp.arange(batch.x.shape[1]) >= batch.lengths[:, None]
    none = jnp.arange(batch.labels.shape[1]) >= batch.sizes[:, None]
    nats = optax.ctc_loss(
        logits, outside.astype(logits.dtype), batch.labels, none.astype(logits.dtype),
        blank_id=BLANK,
    )  # fmt: skip
    return jnp.where(batch.sizes > 0, nats, 0).sum(), batch.sizes.sum()
