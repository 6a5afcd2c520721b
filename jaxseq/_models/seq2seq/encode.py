"""The encoder, and the bridge to the decoder's initial state."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._attention.prepared import prepare
from jaxseq._base.check import check, check_lengths, check_tokens, of_values
from jaxseq._base.dropout import check_dropout, drop
from jaxseq._base.dtypes import widened
from jaxseq._base.mesh import as_one_batch, rows
from jaxseq._cells.any import cell_of
from jaxseq._cells.cell import Cell
from jaxseq._compose.layers import stack
from jaxseq._models.memory import Memory
from jaxseq._models.seq2seq.cells import layer_of
from jaxseq._models.seq2seq.checks import check_params
from jaxseq._models.seq2seq.params import (
    BridgeParams,
    Seq2SeqParams,
    feeds,
)
from jaxseq._models.seq2seq.state import Seq2SeqState


def seq2seq_encode(
    params: Seq2SeqParams,
    source: ArrayLike,
    *,
    cell: Cell | None = None,
    source_lengths: ArrayLike | None = None,
    dropout: ArrayLike = 0.0,
    key: Array | None = None,
) -> Seq2SeqState:
    """Reads the source and returns the decoder's initial state.

    Args:
        params: weights.
        source: tokens, from 0 to the size of the vocabulary less 1, `(..., S)`; past
            `source_lengths` they may be anything. Another, where only a run under
            `jit` knows it, has an embedding of NaN.
        cell: the `Cell` that the weights were drawn for; it may be left out for those
            that are built in.
        source_lengths: valid tokens of each source, `(...)`; all S if None.
        dropout: probability in [0, 1) that a value of the embeddings, between two
            layers or of the outputs is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `Seq2SeqState`, as `seq2seq_decode` and `seq2seq_decode_step` take it.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.seq2seq_init(
        ...     jax.random.key(0), source_vocab=90, target_vocab=70,
        ...     embed_features=16, hidden_features=32,
        ... )
        >>> source, lengths = jnp.ones((2, 7), int), jnp.array([7, 3])
        >>> state = jaxseq.seq2seq_encode(params, source, source_lengths=lengths)
        >>> state.memory.values.shape
        (2, 7, 64)
    """
    params = check_params(params, cell)
    check_dropout(dropout, key)
    shape = of_values(source, "source").shape
    check(len(shape) >= 1, "source", "shape (..., S)", shape)
    *batch, S = shape
    lengths, valid = source_lengths, None
    if lengths is not None:
        lengths = check_lengths(lengths, tuple(batch), S, name="source_lengths")
        valid = jnp.arange(S, dtype=jnp.int32) < lengths[..., None]
    source = check_tokens(source, "source", len(params.source), valid)
    k_in, k_between, k_out = [None] * 3 if key is None else jax.random.split(key, 3)
    x = drop(rows(params.source, source), dropout, k_in)
    layers = [layer_of(cell, both) for both in params.encoder]
    between: Any = {"dropout": dropout, "key": k_between}
    ends, y = stack(layers, x, lengths=lengths, **between)
    states = []
    for end, bridge, own in zip(ends, params.bridge, params.decoder, strict=True):
        states.append(_bridge(bridge, end, cell_of(cell, own).zeros(own)))
    attention, feed, memory = params.attention, None, None
    if attention is not None:
        y = drop(y, dropout, k_out)
        memory = Memory(y, prepare(attention.score, y), valid)
        if feeds(params):
            feed = jnp.zeros((*batch, attention.w.shape[-1]), y.dtype)
    return as_one_batch(Seq2SeqState(tuple(states), feed, memory), len(batch))


def _bridge(bridge: BridgeParams, ends: Any, zeros: Any) -> Any:
    """A state like that of one row, of the final states of an encoder's layer."""
    finals = jnp.concatenate(jax.tree.leaves(ends), -1)
    wide = widened(bridge)
    z = finals @ wide.w + wide.b
    parts, tree = jax.tree.flatten(zeros)
    at = [sum(a.shape[-1] for a in parts[:i]) for i in range(1, len(parts))]
    first, *others = jnp.split(z, at, -1)
    return tree.unflatten([jnp.tanh(first), *others])
