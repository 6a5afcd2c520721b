"""The decoder, over given tokens or one step at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._attention.prepared import Score, attend
from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_tokens, of_values
from jaxseq._base.dropout import check_dropout, drop
from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.linear import linear
from jaxseq._base.mesh import as_it_comes_out, rows, vary, varying
from jaxseq._cells.any import cell_of, step_cell
from jaxseq._cells.cell import Cell
from jaxseq._compose.layers import stack
from jaxseq._models.seq2seq.cells import layer_of
from jaxseq._models.seq2seq.checks import check_params
from jaxseq._models.seq2seq.params import (
    BahdanauParams,
    LuongParams,
    Seq2SeqParams,
    feeds,
    target_embeddings,
)
from jaxseq._models.seq2seq.state import Seq2SeqState, batch_of, check_state
from jaxseq._scan.scan import scan


def seq2seq_decode(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    inputs: ArrayLike,
    *,
    cell: Cell | None = None,
    dropout: ArrayLike = 0.0,
    key: Array | None = None,
) -> tuple[Seq2SeqState, Array, Array | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights.
        state: what `seq2seq_encode` returns, or the state to go on from.
        inputs: tokens of each step, from 0 to V - 1, `(..., T)`: the target, a start
            token before it. Another, where only a run under `jit` knows it, has an
            embedding of NaN.
        cell: the `Cell` that the weights were drawn for; it may be left out for those
            that are built in.
        dropout: probability in [0, 1) that a value of the embeddings, between two
            layers or before the logits is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, logits, weights)`: the state to go on from, logits of the token
        after each, `(..., T, V)`, and the attention's weights, `(..., T, S)`, or of
        each head `(..., num_heads, T, S)`; None with no attention.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.seq2seq_init(
        ...     jax.random.key(0), source_vocab=90, target_vocab=70,
        ...     embed_features=16, hidden_features=32,
        ... )
        >>> state = jaxseq.seq2seq_encode(params, jnp.ones((2, 7), int))
        >>> inputs = jnp.ones((2, 5), int)
        >>> state, logits, weights = jaxseq.seq2seq_decode(params, state, inputs)
        >>> logits.shape, weights.shape
        ((2, 5, 70), (2, 5, 7))
    """
    params = check_params(params, cell)
    check_dropout(dropout, key)
    state = check_state(params, cell, state)
    shape, batch = of_values(inputs, "inputs").shape, batch_of(state)
    check(len(shape) >= 1, "inputs", "shape (..., T)", shape)
    expected = *batch, shape[-1]
    check(shape == expected, "inputs", f"shape {expected}", shape)
    embeddings = target_embeddings(params)
    inputs = check_tokens(inputs, "inputs", len(embeddings))
    k_in, k_between, k_out = [None] * 3 if key is None else jax.random.split(key, 3)
    x = drop(rows(embeddings, inputs), dropout, k_in)
    by_step = isinstance(params.attention, BahdanauParams) or feeds(params)
    run = _run_by_step if by_step else _run_by_layer
    state, read = run(params, cell, state, x, dropout, k_between)
    a = drop(_readout(params, read, x), dropout, k_out)
    state = state._replace(memory=apart(state.memory))
    return state, _logits(params, a), read.weights


class Read(NamedTuple):
    """What a step reads its logits from, with an axis of steps or without."""

    y: Array  # of the uppermost cell
    context: Array | None
    weights: Array | None
    fed: Array | None  # the readout, where the next step reads it


def _run_by_layer(
    params: Seq2SeqParams,
    cell: Cell | None,
    state: Seq2SeqState,
    x: Array,
    dropout: Any,
    key: Array | None,
) -> tuple[Seq2SeqState, Read]:
    """All steps of a layer at once, where none waits for the attention before it."""
    layers = [layer_of(cell, (own,)) for own in params.decoder]
    ends, y = stack(layers, x, state.layers, dropout=dropout, key=key)
    context, weights = None, None
    if params.attention is not None:
        context, weights = attend(params.attention.score, y, *_memory(state))
    return state._replace(layers=ends), Read(y, context, weights, None)


def _run_by_step(
    params: Seq2SeqParams,
    cell: Cell | None,
    state: Seq2SeqState,
    x: Array,
    dropout: Any,
    key: Array | None,
) -> tuple[Seq2SeqState, Read]:
    # in a `shard_map` their gradients are then summed over devices once, at the end
    params = vary(params, varying((state, x)))
    # cast here, not in each step: `scan` finds only products with what stays the same
    params = params._replace(attention=widened(params.attention))
    memory = state.memory

    def body(moving: Any, over: Any) -> Any:
        (layers, feed), (t, x_t) = moving, over
        k_t = None if key is None else jax.random.fold_in(key, t)
        before = Seq2SeqState(layers, feed, memory)
        after, read = _step(params, cell, before, x_t, dropout, k_t)
        return (after.layers, after.feed), read

    times = jnp.arange(x.shape[-2], dtype=jnp.int32)
    over = times, jnp.moveaxis(x, -2, 0)
    first = lambda moving, over: body(moving, jax.tree.map(lambda a: a[0], over))[0]
    moving = state.layers, state.feed
    if x.shape[-2] != 0:
        moving = as_it_comes_out(first, moving, over)
    (layers, feed), read = scan(body, moving, over)
    read = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -2), read)
    return Seq2SeqState(layers, feed, memory), read


def seq2seq_decode_step(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    token: ArrayLike,
    *,
    cell: Cell | None = None,
) -> tuple[Seq2SeqState, Array]:
    """Does one step of the decoder: `partial(seq2seq_decode_step, params)` decodes.

    Args:
        params: weights.
        state: the decoder's state.
        token: the token before, or a start token, from 0 to V - 1, `(...)`. Another,
            where only a run under `jit` knows it, has an embedding of NaN.
        cell: the `Cell` that the weights were drawn for; it may be left out for those
            that are built in.

    Returns:
        `(state, logits)`: the new state, and logits of the next token, `(..., V)`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.seq2seq_init(
        ...     jax.random.key(0), source_vocab=90, target_vocab=70,
        ...     embed_features=16, hidden_features=32,
        ... )
        >>> state = jaxseq.seq2seq_encode(params, jnp.ones((2, 7), int))
        >>> state, logits = jaxseq.seq2seq_decode_step(params, state, jnp.array([1, 1]))
        >>> logits.shape
        (2, 70)
    """
    params = check_params(params, cell)
    state = check_state(params, cell, state)
    token = check_tokens(token, "token", len(target_embeddings(params)))
    batch = batch_of(state)
    check(token.shape == batch, "token", f"shape {batch}", token.shape)
    x = rows(target_embeddings(params), token)
    state, read = _step(params, cell, state, x, 0.0, None)
    logits = _logits(params, _readout(params, read, x))
    return state._replace(memory=apart(state.memory)), logits


def _step(
    params: Seq2SeqParams,
    cell: Cell | None,
    state: Seq2SeqState,
    x: Array,
    dropout: Any,
    key: Array | None,
) -> tuple[Seq2SeqState, Read]:
    """One step on embeddings (..., E)."""
    attention, context, weights, e = params.attention, None, None, x
    if isinstance(attention, BahdanauParams):
        query = jax.tree.leaves(state.layers[-1])[0].astype(x.dtype)
        context, weights = _attend_one(attention.score, query, state)
        x = jnp.concatenate([x, context], -1)
    if state.feed is not None:
        x = jnp.concatenate([x, state.feed], -1)
    layers = []
    for i, (own, before) in enumerate(zip(params.decoder, state.layers, strict=True)):
        if i > 0 and key is not None:
            key, k = jax.random.split(key)
            x = drop(x, dropout, k)
        after, x = step_cell(cell_of(cell, own), own, before, x)
        layers.append(after)
    if isinstance(attention, LuongParams):
        context, weights = _attend_one(attention.score, x, state)
    read = Read(x, context, weights, None)
    if feeds(params):
        read = read._replace(fed=_readout(params, read, e))
    return state._replace(layers=tuple(layers), feed=read.fed), read


def _attend_one(score: Score, query: Array, state: Seq2SeqState) -> Any:
    context, weights = attend(score, query[..., None, :], *_memory(state))
    return context[..., 0, :], weights[..., 0, :]


def _memory(state: Seq2SeqState) -> tuple[Any, Array, Array | None]:
    assert state.memory is not None
    values, keys, valid = state.memory
    return keys, values, valid


def _readout(params: Seq2SeqParams, read: Read, e: Array) -> Array:
    """What the logits are read from, of embeddings (..., E) and what came of them."""
    attention, y = params.attention, read.y
    if read.fed is not None:
        return read.fed
    if attention is None or read.context is None:
        return y
    if isinstance(attention, LuongParams):
        z = linear(jnp.concatenate([read.context, y], -1), attention.w, attention.b)
        return jnp.tanh(z.astype(state_dtype(y.dtype))).astype(y.dtype)
    z = linear(jnp.concatenate([y, read.context, e], -1), attention.w, attention.b)
    return z.reshape(*z.shape[:-1], z.shape[-1] // 2, 2).max(-1)


def _logits(params: Seq2SeqParams, a: Array) -> Array:
    return linear(a, params.w_o, params.b_o)
