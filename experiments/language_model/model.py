"""The character model: embedding, recurrent layers, linear head."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn

CELLS = {"rnn": jaxseq.nn.RNN, "lstm": jaxseq.nn.LSTM, "gru": jaxseq.nn.GRU}


class LanguageModel(nnx.Module):
    """Maps tokens `(..., T)` to logits `(..., T, vocabulary)` of the next ones."""

    def __init__(
        self,
        vocabulary: int,
        *,
        cell: str,
        layers: int,
        hidden: int,
        embedding: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.embed = nnx.Embed(vocabulary, embedding, rngs=rngs)
        self.recurrent = CELLS[cell](
            embedding, hidden, num_layers=layers, dropout=dropout, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(hidden, vocabulary, rngs=rngs)

    def __call__(self, tokens: Array, state: Any = None) -> tuple[Any, Array]:
        state, y = self.recurrent(self.embed(tokens), state)
        return state, self.head(self.dropout(y))


def nats(logits: Array, targets: Array) -> Array:
    """Negative log-likelihood of each target, `(..., T)`, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def sample_token(key: Array, logits: Array, temperature: Any, top_p: Any) -> Array:
    """Draws from the likeliest tokens that make up `top_p` of the probability.

    Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text
    Degeneration", 2020, https://arxiv.org/abs/1904.09751. At temperature 0 it is
    the likeliest token.
    """
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    order = jnp.argsort(scaled, descending=True)
    p = jax.nn.softmax(scaled[order])
    kept = jnp.cumsum(p) - p < top_p  # the likeliest always
    drawn = order[jax.random.categorical(key, jnp.where(kept, jnp.log(p), -jnp.inf))]
    return jnp.where(temperature > 0, drawn, logits.argmax())


@nnx.jit(static_argnames="length")
def generate(
    model: LanguageModel,
    prompt: Array,
    key: Array,
    temperature: float,
    top_p: float,
    *,
    length: int,
) -> Array:
    """Returns `length` tokens that follow the tokens of `prompt`, at least one."""
    graph, weights = nnx.split(model)
    state, logits = model(prompt)

    def step(carry: Any, key: Array) -> tuple[Any, Array]:
        state, logits = carry
        token = sample_token(key, logits, temperature, top_p)
        state, logits = nnx.merge(graph, weights)(token[None], state)
        return (state, logits[-1]), token

    carry = state, logits[-1]
    return jax.lax.scan(step, carry, jax.random.split(key, length))[1]
