"""From queries and keys to scores, weights and contexts."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import AdditiveParams
from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.linear import linear


def additive(
    params: AdditiveParams,
    query: Array,
    keys: Array,
    values: Array,
    valid: Array | None,
) -> tuple[Array, Array]:
    """With keys that went through their map already."""
    wide = state_dtype(query.dtype)
    hidden = linear(query, params.w_q)[..., :, None, :] + keys[..., None, :, :]
    scores = jnp.tanh(hidden.astype(wide)) @ widened(params.v)
    weights = softmax(scores, valid).astype(query.dtype)
    return weights @ values, weights


def softmax(scores: Array, valid: Array | None) -> Array:
    """Softmax of each row over what is valid in it; zeros where nothing is."""
    if valid is None:
        return jax.nn.softmax(scores)
    some = valid.any(-1, keepdims=True)
    scores = jnp.where(valid, scores, jnp.where(some, -jnp.inf, 0))
    return jnp.where(valid, jax.nn.softmax(scores), 0)


def dot(
    query: Array,
    keys: Array,
    values: Array,
    valid: Array | None,
    scale: Any = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Without heads: (..., T, K), (..., S, K) and (..., S, V)."""
    q, k, v = query[..., None, :], keys[..., None, :], values[..., None, :]
    context, weights = dot_heads(q, k, v, valid, scale, implementation)
    return context[..., 0, :], weights[..., 0, :, :]


def dot_heads(
    query: Array,
    keys: Array,
    values: Array,
    valid: Array | None,
    scale: Any = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Of N heads of queries, and M heads of keys and values, for N / M of them each.

    They are (..., T, N, A), (..., S, M, A) and (..., S, M, V); `valid` broadcasts to
    (..., T, S), and has its rank, or to (..., N, T, S).
    """
    dtype, same = query.dtype, values.shape[-1] == keys.shape[-1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    *batch, T, N, A = query.shape
    S, M = keys.shape[-3:-1]
    groups = query.reshape(*batch, T, M, N // M, A)
    wide: Any = state_dtype(dtype)
    scores = jnp.einsum(
        "...tmga,...sma->...mgts", groups, keys, preferred_element_type=wide
    )
    scores = scores.reshape(*batch, N, T, S) * jnp.asarray(scale, wide)
    if valid is not None and valid.ndim < scores.ndim:
        valid = valid[..., None, :, :]
    weights = softmax(scores, valid).astype(dtype)
    # that of JAX takes its softmax in float32, and values as wide as the keys; in
    # bfloat16 it mixes dtypes, and its gradients, which are derived outside of the
    # context below, fail under strict promotion; in float16 not every CPU runs it
    if implementation is None and not (same and dtype == jnp.float32):
        groups = weights.reshape(*batch, M, N // M, T, S)
        context = jnp.einsum("...mgts,...smv->...tmgv", groups, values)
        return context.reshape(*batch, T, N, values.shape[-1]), weights
    flat = lambda a: a.reshape(prod(batch), *a.shape[-3:])
    mask = valid
    if mask is not None:
        mask = flat(jnp.broadcast_to(mask, (*batch, mask.shape[-3], T, S)))
    with jax.numpy_dtype_promotion("standard"):  # of its values only
        context = jax.nn.dot_product_attention(
            *map(flat, (query, keys, values)),
            mask=mask,
            scale=scale,
            implementation=implementation,  # pyright: ignore
        )
    context = context.reshape(query.shape)
    if valid is not None:
        some = valid.any(-1).swapaxes(-1, -2)[..., None]
        context = jnp.where(some, context, 0)
    return context, weights
