"""One vector to many sequences: an image is encoded, an LSTM spells its name."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq.nn
from experiments.captions.names import TOKENS
from experiments.captions.settings import Settings


class Captioner(nnx.Module):
    """Maps images `(B, 8, 8)` and tokens `(B, L)` to logits `(B, L, V)`.

    All that the decoder knows of the image is its first state. The first token says
    in which language.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        H, E = settings.hidden, settings.embedding
        rows = settings.encoder == "rows"
        self.rows = jaxseq.nn.LSTM(8, H, rngs=rngs) if rows else None
        self.pixels = None if rows else nnx.Linear(64, H, rngs=rngs)
        self.bridge = nnx.Linear(H, 2 * H, rngs=rngs)
        self.embed = nnx.Embed(TOKENS, E, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout, rngs=rngs)
        self.decoder = jaxseq.nn.LSTM(E, H, rngs=rngs)
        self.head = nnx.Linear(H, TOKENS, rngs=rngs)

    def encode(self, images: Array) -> Array:
        """The vector of each image, `(B, H)`."""
        if self.pixels is not None:
            return jnp.tanh(self.pixels(images.reshape(len(images), -1)))
        assert self.rows is not None
        (state,), _ = self.rows(images)
        return state.h

    def start(self, images: Array) -> Any:
        """The decoder's first state, made of the vector: h between -1 and 1, and c."""
        vector = self.dropout(self.encode(images))
        h, c = jnp.split(self.bridge(vector), 2, -1)
        return (jaxseq.LSTMState(h=jnp.tanh(h), c=c),)

    def decode(self, state: Any, tokens: Array) -> tuple[Any, Array]:
        state, y = self.decoder(self.dropout(self.embed(tokens)), state)
        return state, self.head(self.dropout(y))

    def step(self, state: Any, token: Array) -> tuple[Any, Array]:
        """One token `(B,)`, as the functions that decode ask for it."""
        state, logits = self.decode(state, token[:, None])
        return state, logits[:, 0]

    def __call__(self, images: Array, tokens: Array) -> Array:
        return self.decode(self.start(images), tokens)[1]


def make(settings: Settings, facts: dict[str, Any]) -> Captioner:
    return Captioner(settings, rngs=nnx.Rngs(settings.seed))


def loss(model: Captioner, batch: Any) -> tuple[Array, Array]:
    """The sum of the cross-entropies of all letters, and how many there are."""
    logits = model(batch.images, batch.inputs)
    nats = jaxseq.cross_entropy(logits, batch.targets, lengths=batch.lengths)
    return nats.sum(), batch.lengths.sum()
