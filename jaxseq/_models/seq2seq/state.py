"""State of the decoder, and checks of it and of tokens."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check
from jaxseq._models.seq2seq.params import Seq2SeqParams, feeds


class Memory(NamedTuple):
    """What the decoder attends to."""

    values: Array  # (..., S, C)
    keys: Any  # the part of the score that no query enters, or None
    valid: Array | None  # (..., S)


class Seq2SeqState(NamedTuple):
    """State of the decoder; every leaf starts with the batch."""

    layers: tuple[Any, ...]
    feed: Array | None  # a_{t-1} (..., A), with input feeding
    memory: Memory | None


def batch_of(state: Seq2SeqState) -> tuple[int, ...]:
    return jnp.shape(jax.tree.leaves(state.layers)[0])[:-1]


def shape_of(tokens: Any, time: str) -> tuple[int, ...]:
    shape = jnp.shape(tokens)
    check(len(shape) >= 1, "tokens", f"shape (..., {time})", shape)
    return shape


def check_state(params: Seq2SeqParams, state: Any) -> None:
    """All but the shapes of the cells' states, which the cells check."""
    ok = isinstance(state, Seq2SeqState)
    check(ok, "state", "Seq2SeqState", type(state).__name__)
    n, got = len(params.decoder), len(state.layers)
    check(got == n, "state", f"states of {n} layers", got)
    attends = params.attention is not None
    for name, needed in (("feed", feeds(params)), ("memory", attends)):
        given = getattr(state, name) is not None
        text, got = (f"{'a' if x else 'no'} {name}" for x in (needed, given))
        check(given == needed, "state", text, got)
    batch = batch_of(state)
    for leaf in jax.tree.leaves(state):
        shape = jnp.shape(leaf)
        ok = shape[: len(batch)] == batch
        check(ok, "state", f"arrays that start with the batch {batch}", shape)
