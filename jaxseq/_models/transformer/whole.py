"""Encoder and decoder over whole sequences."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._base.check import check, check_lengths, check_tokens
from jaxseq._base.dropout import check_dropout, drop
from jaxseq._base.mesh import rows
from jaxseq._models.transformer.cache import Cache, memory_caches
from jaxseq._models.transformer.layer import (
    Activation,
    keep,
    logits_of,
    normed,
    run_layer,
)
from jaxseq._models.transformer.params import (
    TransformerLayer,
    TransformerParams,
    TransformerStack,
    check_params,
    decoder_of,
    embed_of,
)
from jaxseq._models.transformer.positions import check_positions, positioned, rotated


def transformer_encode(
    params: TransformerParams,
    tokens: Array,
    *,
    lengths: Array | None = None,
    activation: Activation = jax.nn.relu,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Array:
    """Runs the encoder.

    Args:
        params: weights with an encoder.
        tokens: from 0 to the size of the vocabulary less 1, `(..., S)`; past `lengths`
            they may be anything. Another, where only a run under `jit` knows it, has an
            embedding of NaN.
        lengths: valid tokens of each sequence, `(...)`; all S if None.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        A vector for each token, `(..., S, D)`; zeros past `lengths`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = check_params(params)
    stack = params.encoder
    check(stack is not None, "params", "weights with an encoder", "none")
    assert stack is not None
    check_dropout(dropout, key)
    x, valid = _start(params, embed_of(params, "encoder"), tokens, lengths)
    x, _ = _run(params, stack, x, valid, None, None, activation, dropout, key)
    return x if valid is None else jnp.where(valid[..., None], x, 0)


def transformer_decode(
    params: TransformerParams,
    tokens: Array,
    memory: Array | None = None,
    *,
    memory_lengths: Array | None = None,
    activation: Activation = jax.nn.relu,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, tuple[Array, ...] | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights with a decoder.
        tokens: from 0 to V - 1, `(..., T)`; each is followed by what its logits are of.
            Another, where only a run under `jit` knows it, has an embedding of NaN.
        memory: outputs of the encoder, `(..., S, D)`; None with no encoder.
        memory_lengths: valid tokens of each source, `(...)`; all S if None.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(logits, weights)`: logits of the token after each, `(..., T, V)`, and of
        each layer the weights of its attention to the memory, `(..., N, T, S)`;
        None with no encoder.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = check_params(params)
    stack = decoder_of(params)
    check_dropout(dropout, key)
    x, _ = _start(params, embed_of(params, "decoder"), tokens, None)
    cross, valid = memory_caches(params, memory, memory_lengths, x.shape[:-2])
    T = x.shape[-2]
    before = jnp.tril(jnp.ones((T, T), jnp.bool_))
    before = jnp.broadcast_to(before, (*x.shape[:-1], T))
    x, weights = _run(params, stack, x, before, cross, valid, activation, dropout, key)
    return logits_of(params, x), weights if cross is not None else None


def _run(
    params: TransformerParams,
    stack: TransformerStack,
    x: Array,
    valid: Array | None,
    cross: tuple[Cache, ...] | None,
    cross_valid: Array | None,
    activation: Activation,
    dropout: float,
    key: Array | None,
) -> tuple[Array, tuple[Array, ...]]:
    """All layers over whole sequences; `valid` is (..., S) or (..., T, S)."""
    dropped = keep
    if key is not None:
        keys = iter(jax.random.split(key, 3 * len(stack.layers) + 1))
        dropped = lambda x: drop(x, dropout, next(keys))
    x, weights = dropped(x), []
    if valid is not None and valid.ndim < x.ndim:
        shape = (*x.shape[:-1], x.shape[-2])
        valid = jnp.broadcast_to(valid[..., None, :], shape)
    at = jnp.arange(x.shape[-2], dtype=jnp.int32)
    rotate = lambda a: rotated(params.positions, a, at)

    def attend_self(layer: TransformerLayer, x: Array) -> Array:
        k, v = heads_of(layer.attention, x, x)
        heads = rotate(k), v
        return attend_heads(layer.attention, x, *heads, valid, rotate=rotate)[0]

    for i, layer in enumerate(stack.layers):
        attend = lambda x, layer=layer: attend_self(layer, x)
        memory = None if cross is None else cross[i]
        pre = stack.norm is not None
        x, w = run_layer(
            layer, x, attend, memory, cross_valid, activation, pre, dropped
        )
        weights.append(w)
    return x if stack.norm is None else normed(stack.norm, x), tuple(weights)


def _start(
    params: TransformerParams, embed: Array, tokens: Any, lengths: Any
) -> tuple[Array, Array | None]:
    """Embedded tokens (..., T, D), and which are valid (..., T) if not all."""
    shape = jnp.shape(tokens)
    check(len(shape) >= 1, "tokens", "shape (..., T)", shape)
    *batch, T = shape
    check_positions(params.positions, T, "tokens")
    at, valid = jnp.arange(T, dtype=jnp.int32), None
    if lengths is not None:
        valid = at < check_lengths(lengths, tuple(batch), T)[..., None]
    tokens = check_tokens(tokens, "tokens", len(embed), valid)
    return positioned(params.positions, rows(embed, tokens), at), valid
