"""State of the decoder, and checks of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import AdditiveParams, MultiHeadParams
from jaxseq._base.check import check
from jaxseq._cells.cell import Cell
from jaxseq._models.check import as_arrays, check_kind, check_tree
from jaxseq._models.memory import Memory
from jaxseq._models.seq2seq.cells import widths_of, zeros_like
from jaxseq._models.seq2seq.params import Seq2SeqParams, feeds


class Seq2SeqState(NamedTuple):
    """State of the decoder; every leaf starts with the batch.

    Fields:
        layers: the cell's state of each layer.
        feed: with input feeding the units of the step before, `(..., A)`.
        memory: what attention reads; None without.
    """

    layers: tuple[Any, ...]
    feed: Array | None
    memory: Memory | None


def batch_of(state: Seq2SeqState) -> tuple[int, ...]:
    return jnp.shape(jax.tree.leaves(state.layers)[0])[:-1]


def check_state(params: Seq2SeqParams, cell: Cell | None, state: Any) -> Seq2SeqState:
    """Checks a state for these weights, and returns it as arrays."""
    check_kind(state, "state", Seq2SeqState)
    state = as_arrays(state, "state")
    n, layers = len(params.decoder), state.layers
    got = f"{len(layers)}" if type(layers) is tuple else type(layers).__name__
    check(got == f"{n}", "state", f"states of {n} layers", got)
    attention = params.attention
    for name, needed in (("feed", feeds(params)), ("memory", attention is not None)):
        given = getattr(state, name) is not None
        text, got = (f"{'a' if x else 'no'} {name}" for x in (needed, given))
        check(given == needed, "state", text, got)
    batch = batch_of(state) if jax.tree.leaves(layers) else ()
    like = Seq2SeqState(
        tuple(zeros_like(cell, own, batch) for own in params.decoder),
        _feed_like(params, batch),
        _memory_like(params, cell, batch, state.memory),
    )
    check_tree(state, like, "state")
    return state


def _feed_like(params: Seq2SeqParams, batch: tuple[int, ...]) -> Any:
    if params.attention is None or not feeds(params):
        return None
    w = params.attention.w
    return jax.ShapeDtypeStruct((*batch, w.shape[-1]), w.dtype)


def _memory_like(
    params: Seq2SeqParams, cell: Cell | None, batch: tuple[int, ...], memory: Any
) -> Memory | None:
    """Of a memory of any length, what it has to be."""
    if params.attention is None:
        return None
    check_kind(memory, "state.memory", Memory)
    shape = jnp.shape(memory.values) if hasattr(memory.values, "shape") else ()
    lead, score = (*batch, shape[-2] if len(shape) >= 2 else 0), params.attention.score
    a = lambda *shape: jax.ShapeDtypeStruct((*lead, *shape), params.w_o.dtype)
    C = sum(widths_of(cell, own)[0] for own in params.encoder[-1])
    keys: Any = None
    if isinstance(score, AdditiveParams):
        keys = a(score.v.shape[0])
    elif isinstance(score, MultiHeadParams):
        keys = a(*score.w_k.shape[1:]), a(*score.w_v.shape[1:])
    valid: Any = memory.valid
    if valid is not None:
        valid = jax.ShapeDtypeStruct(lead, jnp.bool_)
    values: Any = a(C)
    return Memory(values, keys, valid)
