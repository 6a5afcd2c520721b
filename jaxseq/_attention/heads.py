"""Attention in several heads, each with maps of its own."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import MultiHeadParams
from jaxseq._attention.scores import dot_heads
from jaxseq._base.linear import linear


def heads_of(
    params: MultiHeadParams, keys: Array, values: Array
) -> tuple[Array, Array]:
    """Keys and values by head, `(..., S, M, A)` each."""
    k = split_heads(keys, params.w_k, params.b_k)
    return k, split_heads(values, params.w_v, params.b_v)


def attend_heads(
    params: MultiHeadParams,
    query: Array,
    k: Array,
    v: Array,
    valid: Array | None,
    *,
    implementation: str | None = None,
    rotate: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Attention of queries `(..., T, Q)` to heads; `valid` as in `dot_heads`."""
    q = split_heads(query, params.w_q, params.b_q)
    q = q if rotate is None else rotate(q)
    context, weights = dot_heads(q, k, v, valid, implementation=implementation)
    return join_heads(context, params.w_o, params.b_o), weights


def split_heads(a: Array, w: Array, b: Array | None) -> Array:
    """`a w + b` by head: (..., T, width) to (..., T, N, A)."""
    return linear(a, w, b, partial(jnp.einsum, "...d,dna->...na"))


def join_heads(heads: Array, w: Array, b: Array | None) -> Array:
    """(..., T, N, A) to (..., T, O)."""
    return linear(heads, w, b, partial(jnp.einsum, "...na,nao->...o"))
