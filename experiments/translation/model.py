"""The four models, each as the same four functions over its weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import jaxseq
from experiments.translation.settings import Settings

CELLS = {"rnn": jaxseq.rnn_init, "lstm": jaxseq.lstm_init, "gru": jaxseq.gru_init}


class Model(NamedTuple):
    """Shapes: sources (B, S), lengths (B,), inputs (B, T), tokens (B,)."""

    # (key) -> weights
    init: Callable[[Array], Any]
    # (weights, sources, lengths, inputs, dropout=, key=) -> logits (B, T, V),
    # weights of attention (B, T, S) or None
    forward: Callable[..., tuple[Array, Array | None]]
    # (weights, sources, lengths, max_length) -> state
    start: Callable[..., Any]
    # (weights, state, tokens) -> state, logits (B, V)
    step: Callable[..., tuple[Any, Array]]


def make_model(settings: Settings, source: int, target: int) -> Model:
    """The model of the settings for vocabularies of these sizes."""
    if settings.model == "transformer":
        return transformer(settings, source, target)
    return recurrent(settings, source, target)


def recurrent(settings: Settings, source: int, target: int) -> Model:
    init = partial(
        jaxseq.seq2seq_init,
        source=source,
        target=target,
        E=settings.embedding,
        H=settings.hidden,
        cell=CELLS[settings.cell],
        layers=settings.layers,
        attention=None if settings.model == "plain" else settings.model,
        score=settings.score,
        heads=settings.heads,
        feed=settings.feed,
    )

    def forward(weights, sources, lengths, inputs, *, dropout=0.0, key=None):
        keys = (None, None) if key is None else jax.random.split(key)
        read = partial(jaxseq.seq2seq_encode, lengths=lengths, dropout=dropout)
        state = read(weights, sources, key=keys[0])
        how = {"dropout": dropout, "key": keys[1]}
        _, logits, attended = jaxseq.seq2seq_decode(weights, state, inputs, **how)
        return logits, attended

    def start(weights, sources, lengths, max_length):
        return jaxseq.seq2seq_encode(weights, sources, lengths=lengths)

    return Model(init, forward, start, jaxseq.seq2seq_decode_step)


def transformer(settings: Settings, source: int, target: int) -> Model:
    init = partial(
        jaxseq.transformer_init,
        D=settings.hidden,
        N=settings.heads,
        F=2 * settings.hidden,
        source=source,
        target=target,
        encoder_layers=settings.layers,
        decoder_layers=settings.layers,
    )

    def forward(weights, sources, lengths, inputs, *, dropout=0.0, key=None):
        keys = (None, None) if key is None else jax.random.split(key)
        read = partial(jaxseq.transformer_encode, lengths=lengths, dropout=dropout)
        memory = read(weights, sources, key=keys[0])
        how = {"memory_lengths": lengths, "dropout": dropout, "key": keys[1]}
        logits, attended = jaxseq.transformer_decode(weights, inputs, memory, **how)
        assert attended is not None
        return logits, jnp.stack(attended).mean((0, -3))  # over layers and heads

    def start(weights, sources, lengths, max_length):
        memory = jaxseq.transformer_encode(weights, sources, lengths=lengths)
        how = {"memory_lengths": lengths, "max_length": max_length}
        return jaxseq.transformer_zeros(weights, memory, **how)

    return Model(init, forward, start, jaxseq.transformer_decode_step)
