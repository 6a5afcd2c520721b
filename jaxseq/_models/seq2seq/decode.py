"""The decoder, over given tokens or one step at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.prepared import Score, attend
from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_tokens
from jaxseq._base.dropout import check_dropout, drop
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.mesh import rows, scan, vary, varying
from jaxseq._cells.any import cell_of, step_cell
from jaxseq._cells.cell import Cell
from jaxseq._compose.layers import stack
from jaxseq._models.seq2seq.cells import layer_of
from jaxseq._models.seq2seq.params import (
    BahdanauParams,
    LuongParams,
    Seq2SeqParams,
    check_params,
    target_embeddings,
)
from jaxseq._models.seq2seq.state import Seq2SeqState, batch_of, check_state, shape_of


def seq2seq_decode(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    tokens: Array,
    *,
    cell: Cell | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Seq2SeqState, Array, Array | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights.
        state: the decoder's state, as of `seq2seq_encode`.
        tokens: inputs of each step, `(..., T)`: the target, a start token before it,
            each from 0 to V - 1. Another, where only a run under `jit` knows it, has an
            embedding of NaN.
        cell: the `Cell` that the weights were drawn for; it may be left out for those
            that are built in.
        dropout: probability in [0, 1) that a value of the embeddings, between two
            layers or before the logits is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, logits, weights)`: the state to go on from, logits of the token
        after each, `(..., T, V)`, and the attention's weights, `(..., T, S)`, or of
        each head `(..., heads, T, S)`; None with no attention.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = check_params(params, cell)
    check_dropout(dropout, key)
    embeddings = target_embeddings(params)
    *batch, T = shape_of(tokens, "T")
    tokens = check_tokens(tokens, "tokens", len(embeddings))
    check_state(params, state)
    expected = *batch_of(state), T
    check((*batch, T) == expected, "tokens", f"shape {expected}", tokens.shape)
    k_in, k_between, k_out = [None] * 3 if key is None else jax.random.split(key, 3)
    x = drop(rows(embeddings, tokens), dropout, k_in)
    attention, context, weights = params.attention, None, None
    if isinstance(attention, BahdanauParams) or state.feed is not None:
        # in a `shard_map` their gradients are then summed over devices once, at the end
        params = vary(params, varying((state, x)))

        def body(state: Seq2SeqState, inputs: Any) -> Any:
            t, x_t = inputs
            k_t = None if k_between is None else jax.random.fold_in(k_between, t)
            state, y_t, context, weights = _step(params, cell, state, x_t, dropout, k_t)
            return state, (y_t, context, weights)

        times = jnp.arange(T, dtype=jnp.int32)
        over = times, jnp.moveaxis(x, -2, 0)
        state, (y, context, weights) = scan(body, state, over)
        y, context = (jnp.moveaxis(a, 0, -2) for a in (y, context))
        weights = jnp.moveaxis(weights, 0, -2)
    else:
        layers = [layer_of(cell, (own,)) for own in params.decoder]
        ends, y = stack(layers, x, state.layers, dropout=dropout, key=k_between)
        state = state._replace(layers=ends)
        if attention is not None:
            context, weights = attend(attention.score, y, *_memory(state))
    a = y if state.feed is not None else _output(params, y, context, x)
    state = state._replace(memory=apart(state.memory))
    return state, _logits(params, drop(a, dropout, k_out)), weights


def seq2seq_decode_step(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    token: Array,
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
    """
    params = check_params(params, cell)
    token = check_tokens(token, "token", len(target_embeddings(params)))
    check_state(params, state)
    batch = batch_of(state)
    check(token.shape == batch, "token", f"shape {batch}", token.shape)
    x = rows(target_embeddings(params), token)
    state, y, context, _ = _step(params, cell, state, x, 0.0, None)
    a = y if state.feed is not None else _output(params, y, context, x)
    return state._replace(memory=apart(state.memory)), _logits(params, a)


def _step(
    params: Seq2SeqParams,
    cell: Cell | None,
    state: Seq2SeqState,
    x: Array,
    dropout: float,
    key: Array | None,
) -> tuple[Seq2SeqState, Array, Array | None, Array | None]:
    """One step on embeddings: state, y (..., H) or the fed output, context, weights."""
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
    state = state._replace(layers=tuple(layers))
    if isinstance(attention, LuongParams):
        context, weights = _attend_one(attention.score, x, state)
    if state.feed is not None:
        x = _output(params, x, context, e)
        state = state._replace(feed=x)
    return state, x, context, weights


def _attend_one(score: Score, query: Array, state: Seq2SeqState) -> Any:
    context, weights = attend(score, query[..., None, :], *_memory(state))
    return context[..., 0, :], weights[..., 0, :]


def _memory(state: Seq2SeqState) -> tuple[Any, Array, Array | None]:
    assert state.memory is not None
    values, keys, valid = state.memory
    return keys, values, valid


def _output(params: Seq2SeqParams, y: Array, context: Array | None, x: Array) -> Array:
    """What the logits are read from."""
    attention = params.attention
    if attention is None or context is None:
        return y
    wide = state_dtype(y.dtype)
    inputs = [context, y] if isinstance(attention, LuongParams) else [y, context, x]
    z = jnp.concatenate(inputs, -1) @ attention.w + attention.b
    if isinstance(attention, LuongParams):
        return jnp.tanh(z.astype(wide)).astype(y.dtype)
    return z.reshape(*z.shape[:-1], z.shape[-1] // 2, 2).max(-1)


def _logits(params: Seq2SeqParams, a: Array) -> Array:
    return a @ params.w_o + params.b_o
