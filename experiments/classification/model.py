"""The classifier: an encoder of the sequence, pooled over time, and a linear head."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn
from experiments.classification.data import PAD, UNKNOWN
from experiments.classification.settings import FEED_FORWARD, Settings

CELLS = {"rnn": jaxseq.nn.RNN, "lstm": jaxseq.nn.LSTM, "bilstm": jaxseq.nn.LSTM,
         "gru": jaxseq.nn.GRU}  # fmt: skip


class Classifier(nnx.Module):
    """Maps sequences, tokens `(B, T)` or inputs `(B, T, D)`, to logits `(B, K)`.

    The models `each` and `bag` are feed-forward networks: one over each input alone,
    whose answers are averaged, and one over the mean of the inputs.
    """

    def __init__(
        self,
        settings: Settings,
        classes: int,
        *,
        vocabulary: int | None = None,
        features: int | None = None,
        rngs: nnx.Rngs,
    ):
        self.cell, self.pooling = settings.model, settings.pooling
        self.word_dropout, self.rngs = settings.word_dropout, rngs
        self.deterministic = False
        D, H = settings.embedding if features is None else features, settings.hidden
        small = jax.nn.initializers.normal(0.3)
        self.embed = (
            None
            if vocabulary is None
            else nnx.Embed(vocabulary, D, embedding_init=small, rngs=rngs)
        )
        self.dropout = nnx.Dropout(settings.dropout, rngs=rngs)
        forward = self.cell in FEED_FORWARD
        both = self.cell == "bilstm"
        self.hidden = nnx.Linear(D, H, rngs=rngs) if forward else None
        self.recurrent = (
            None
            if forward
            else CELLS[self.cell](
                D, H, num_layers=settings.layers, bidirectional=both,
                dropout=settings.dropout if settings.layers > 1 else 0.0, rngs=rngs,
            )
        )  # fmt: skip
        H *= 2 if both else 1
        attends = not forward and self.pooling == "attention"
        self.attend = nnx.Linear(H, H, rngs=rngs) if attends else None
        self.query = nnx.Linear(H, 1, use_bias=False, rngs=rngs) if attends else None
        self.head = nnx.Linear(H, classes, rngs=rngs)

    def inputs(self, x: Array) -> Array:
        """Vectors `(B, T, D)`."""
        if self.embed is None:
            return x
        if self.word_dropout > 0 and not self.deterministic:
            drop = jax.random.bernoulli(self.rngs(), self.word_dropout, x.shape)
            x = jnp.where(drop & (x != PAD), UNKNOWN, x)
        return self.dropout(self.embed(x))

    def __call__(self, x: Array, lengths: Array) -> Array:
        x = self.inputs(x)
        valid = jnp.arange(x.shape[1]) < lengths[:, None]
        if self.hidden is not None:
            if self.cell == "bag":
                x = mean(x, valid)
            y = self.head(self.dropout(jax.nn.relu(self.hidden(x))))
            return mean(y, valid) if self.cell == "each" else y
        assert self.recurrent is not None
        state, y = self.recurrent(x, lengths=lengths)
        return self.head(self.dropout(self.pool(state, y, valid)))

    def pool(self, state: Any, y: Array, valid: Array) -> Array:
        """From `(B, T, H)` to `(B, H)`."""
        if self.pooling == "last":  # the end of each direction
            top = state[-1]
            directions = top if self.cell == "bilstm" else (top,)
            return jnp.concatenate([getattr(s, "h", s) for s in directions], -1)
        if self.pooling == "mean":
            return mean(y, valid)
        if self.pooling == "max":
            low = jnp.where(valid[..., None], y, -jnp.inf).max(1)
            return jnp.where(valid.any(1, keepdims=True), low, 0)
        return jnp.einsum("bt,bth->bh", self.attention(y, valid), y)

    def attention(self, y: Array, valid: Array) -> Array:
        """Weights of the steps, `(B, T)` (Yang and others, 2016)."""
        assert self.attend is not None and self.query is not None
        scores = self.query(jnp.tanh(self.attend(y)))[..., 0]
        return jax.nn.softmax(jnp.where(valid, scores, jnp.finfo(scores.dtype).min))

    def weights(self, x: Array, lengths: Array) -> Array:
        """The weights of attention over tokens `(B, T)`."""
        assert self.recurrent is not None
        _, y = self.recurrent(self.inputs(x), lengths=lengths)
        return self.attention(y, jnp.arange(y.shape[1]) < lengths[:, None])


def make(settings: Settings, facts: dict[str, Any]) -> Classifier:
    """The model for the labels and the vocabulary, or features, among the facts."""
    vocabulary = facts["vocabulary"]
    return Classifier(
        settings,
        len(facts["labels"]),
        vocabulary=None if vocabulary is None else len(vocabulary) + 2,
        features=facts["features"],
        rngs=nnx.Rngs(settings.seed),
    )


def mean(x: Array, valid: Array) -> Array:
    """The mean over the valid steps, `(B, D)`."""
    total = jnp.where(valid[..., None], x, 0).sum(1)
    return total / jnp.maximum(valid.sum(1, keepdims=True), 1)


def loss(model: Classifier, batch: Any) -> tuple[Array, Array]:
    """The sum of the cross-entropies, and how many there are."""
    logits = model(batch.x, batch.lengths)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    there = batch.lengths > 0
    return jnp.where(there, nats, 0).sum(), there.sum()
