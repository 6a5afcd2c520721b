"""The character model: embedding, recurrent layers, linear head."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq
import jaxseq.nn
from examples.cells.layer_norm_lstm import LAYER_NORM_LSTM
from examples.cells.mgu import MGU
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from experiments.frame.trainer import Loss
from experiments.language_model.data import Batch
from experiments.language_model.settings import Settings

CELLS = {
    "rnn": jaxseq.nn.RNN,
    "lstm": jaxseq.nn.LSTM,
    "gru": jaxseq.nn.GRU,
    "mgu": partial(jaxseq.nn.Cell, MGU),
    "layer-norm-lstm": partial(jaxseq.nn.Cell, LAYER_NORM_LSTM),
    "multiplicative-lstm": partial(jaxseq.nn.Cell, MULTIPLICATIVE_LSTM),
}


class LanguageModel(nnx.Module):
    """Maps tokens `(..., T)` to logits `(..., T, vocabulary)` of the next ones."""

    def __init__(self, settings: Settings, vocabulary: int, rngs: nnx.Rngs):
        E, H, dropout = settings.embedding, settings.hidden, settings.dropout
        self.embed = nnx.Embed(vocabulary, E, rngs=rngs)
        between = dropout if settings.layers > 1 else 0.0
        self.recurrent = CELLS[settings.cell](
            E, H, num_layers=settings.layers, dropout=between, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(H, vocabulary, rngs=rngs)

    def __call__(self, tokens: Array, state: Any = None) -> tuple[Any, Array]:
        state, y = self.recurrent(self.embed(tokens), state)
        return state, self.head(self.dropout(y))


def make(settings: Settings, facts: dict[str, Any]) -> LanguageModel:
    vocabulary = len(facts["vocabulary"])
    return LanguageModel(settings, vocabulary, nnx.Rngs(settings.seed))


def start(model: LanguageModel, batch: Batch) -> Any:
    """The state of zeros of each row."""
    return model.recurrent.zeros(len(batch.tokens))


def loss(model: LanguageModel, batch: Batch, carry: Any) -> Loss:
    """Negative log-likelihoods in nats, with the state that the next batch goes on."""
    carry = jax.tree.map(lambda c: jnp.where(batch.fresh, 0, c), carry)
    carry, logits = model(jnp.asarray(batch.tokens), carry)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    if batch.mask is None:
        return Loss(nats.sum(), jnp.asarray(nats.size), carry=carry)
    return Loss((nats * batch.mask).sum(), batch.mask.sum(), carry=carry)


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
