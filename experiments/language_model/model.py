"""The character model: embedding, recurrent layers, linear head."""

from typing import Any

import optax
from flax import nnx
from jax import Array

import jaxseq
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


@nnx.jit(static_argnames=("temperature", "top_p", "length"))
def generate(
    model: LanguageModel,
    prompt: Array,
    key: Array,
    temperature: float,
    top_p: float,
    *,
    length: int,
) -> Array:
    """Returns `length` tokens that follow the tokens of `prompt`, at least one.

    At temperature 0 each is the likeliest.
    """
    graph, weights = nnx.split(model)

    def step(state: Any, token: Array) -> tuple[Any, Array]:
        state, logits = nnx.merge(graph, weights)(token[:, None], state)
        return state, logits[:, 0]

    state, _ = model(prompt[None, :-1])
    start, how_long = (step, state, prompt[-1:]), {"max_length": length, "end": None}
    if temperature == 0:
        return jaxseq.greedy(*start, **how_long).tokens[0]
    limits: Any = {"temperature": temperature, "top_p": top_p}
    return jaxseq.sample(*start, key, **how_long, **limits).tokens[0]
