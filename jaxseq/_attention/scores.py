"""From queries and keys to scores, weights and contexts."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.inputs import check_implementation
from jaxseq._attention.params import AdditiveParams
from jaxseq._base.dtypes import state_dtype


def additive(
    params: AdditiveParams,
    query: Array,
    keys: Array,
    values: Array,
    valid: Array | None,
) -> tuple[Array, Array]:
    """With keys that went through their map already."""
    wide = state_dtype(query.dtype)
    hidden = (query @ params.w_q)[..., :, None, :] + keys[..., None, :, :]
    scores = jnp.tanh(hidden.astype(wide)) @ params.v.astype(wide)
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
    scale: float | None,
    implementation: str | None,
) -> tuple[Array, Array]:
    """Of heads: (..., T, N, A), (..., S, N, A) and values (..., S, N, V)."""
    dtype, same = query.dtype, values.shape[-1] == keys.shape[-1]
    check_implementation(implementation, dtype, same)
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    wide: Any = {"preferred_element_type": state_dtype(dtype)}
    scores = jnp.einsum("...tna,...sna->...nts", query, keys, **wide)
    by_head = None if valid is None else valid[..., None, :, :]
    weights = softmax(scores * factor, by_head).astype(dtype)
    # that of JAX takes its softmax in float32, and values as wide as the keys; in
    # bfloat16 it mixes dtypes, and its gradients, which are derived outside of the
    # context below, fail under strict promotion; in float16 not every CPU runs it
    if implementation is None and not (same and dtype == jnp.float32):
        return jnp.einsum("...nts,...snv->...tnv", weights, values), weights
    batch = query.shape[:-3]
    flat = lambda a: a.reshape(prod(batch), *a.shape[-3:])
    with jax.numpy_dtype_promotion("standard"):  # of its values only
        context = jax.nn.dot_product_attention(
            *map(flat, (query, keys, values)),
            mask=None if by_head is None else flat(by_head),
            scale=factor,
            implementation=implementation,  # pyright: ignore
        )
    context = context.reshape(query.shape)
    if valid is not None:
        context = jnp.where(valid.any(-1)[..., None, None], context, 0)
    return context, weights
