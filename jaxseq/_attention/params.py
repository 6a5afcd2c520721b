"""Weights of attention, and how they start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check, check_dtype, check_flag, check_key, check_sizes


class AdditiveParams(NamedTuple):
    """Weights of additive attention, for scores from A hidden units.

    Fields:
        w_q: of the queries, `(Q, A)`.
        w_k: of the keys, `(K, A)`.
        v: of the scores, `(A,)`.
    """

    w_q: Array
    w_k: Array
    v: Array


class MultiHeadParams(NamedTuple):
    """Weights of N heads of width A, for outputs of width O; no bias where None.

    There are M heads of keys and values, each for N / M neighbouring heads of queries.

    Fields:
        w_q: of the queries, `(Q, N, A)`.
        w_k: of the keys, `(K, M, A)`.
        w_v: of the values, `(V, M, A)`.
        w_o: of the outputs, `(N, A, O)`.
        b_q: bias of the queries, `(N, A)`.
        b_k: bias of the keys, `(M, A)`.
        b_v: bias of the values, `(M, A)`.
        b_o: bias of the outputs, `(O,)`.
    """

    w_q: Array
    w_k: Array
    w_v: Array
    w_o: Array
    b_q: Array | None = None
    b_k: Array | None = None
    b_v: Array | None = None
    b_o: Array | None = None


class Dot(NamedTuple):
    """Stands for the score `q . k`, which has no weights, in a model's weights."""


class ScaledDot(NamedTuple):
    """Stands for the score `q . k / sqrt(K)` in a model's weights."""


def additive_init(
    key: Array,
    query_features: int,
    key_features: int,
    hidden_features: int,
    *,
    dtype: Any = jnp.float32,
) -> AdditiveParams:
    """Draws the weights of `additive_attention`.

    Args:
        key: random key.
        query_features: width of the queries, Q.
        key_features: width of the keys, K.
        hidden_features: number of hidden units, A.
        dtype: of the weights.

    Returns:
        `AdditiveParams`, all Glorot uniform.

    Raises:
        ValueError: if a size is no integer of at least 1, or `dtype` is not one of
            float64, float32, bfloat16 and float16.

    Example:
        >>> params = jaxseq.additive_init(jax.random.key(0), 4, 6, 8)
        >>> params.w_q.shape, params.w_k.shape, params.v.shape
        ((4, 8), (6, 8), (8,))
    """
    check_key(key)
    check_sizes(
        query_features=query_features,
        key_features=key_features,
        hidden_features=hidden_features,
    )
    check_dtype(dtype, "dtype")
    q, k, v = jax.random.split(key, 3)
    glorot = jax.nn.initializers.glorot_uniform()
    return AdditiveParams(
        w_q=glorot(q, (query_features, hidden_features), dtype),
        w_k=glorot(k, (key_features, hidden_features), dtype),
        v=glorot(v, (hidden_features, 1), dtype)[:, 0],
    )


def multi_head_init(
    key: Array,
    features: int,
    num_heads: int,
    head_features: int,
    *,
    num_kv_heads: int | None = None,
    key_features: int | None = None,
    value_features: int | None = None,
    out_features: int | None = None,
    bias: bool = True,
    dtype: Any = jnp.float32,
) -> MultiHeadParams:
    """Draws the weights of `multi_head_attention`.

    Args:
        key: random key.
        features: width of the queries, Q.
        num_heads: number of heads, N.
        head_features: width of each head, A.
        num_kv_heads: number of heads of keys and values, a divisor of `num_heads`:
            fewer make grouped-query attention, 1 multi-query attention; `num_heads`
            if None.
        key_features: width of the keys, K; `features` if None.
        value_features: width of the values, V; that of the keys if None.
        out_features: width of the outputs, O; `features` if None.
        bias: whether the four maps have biases, zero at first.
        dtype: of the weights.

    Returns:
        `MultiHeadParams`, each map Glorot uniform as one matrix of all its heads.

    Raises:
        ValueError: if a size is no integer of at least 1, `num_kv_heads` does not
            divide `num_heads`, `bias` is no boolean, or `dtype` is not one of
            float64, float32, bfloat16 and float16.

    Example:
        >>> params = jaxseq.multi_head_init(jax.random.key(0), 8, 4, 2, num_kv_heads=2)
        >>> params.w_q.shape, params.w_k.shape, params.w_o.shape
        ((8, 4, 2), (8, 2, 2), (4, 2, 8))
    """
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    key_features = features if key_features is None else key_features
    value_features = key_features if value_features is None else value_features
    out_features = features if out_features is None else out_features
    check_key(key)
    check_sizes(
        features=features,
        num_heads=num_heads,
        head_features=head_features,
        num_kv_heads=num_kv_heads,
        key_features=key_features,
        value_features=value_features,
        out_features=out_features,
    )
    ok = num_heads % num_kv_heads == 0
    expected = f"a divisor of num_heads = {num_heads}"
    check(ok, "num_kv_heads", expected, num_kv_heads)
    has_bias = check_flag(bias, "bias")
    check_dtype(dtype, "dtype")
    glorot = jax.nn.initializers.glorot_uniform()
    q, k, v, o = jax.random.split(key, 4)

    def into(key: Array, width: int, heads: int) -> Array:
        w = glorot(key, (width, heads * head_features), dtype)
        return w.reshape(width, heads, head_features)

    w_o = glorot(o, (num_heads * head_features, out_features), dtype)
    params = MultiHeadParams(
        w_q=into(q, features, num_heads),
        w_k=into(k, key_features, num_kv_heads),
        w_v=into(v, value_features, num_kv_heads),
        w_o=w_o.reshape(num_heads, head_features, out_features),
    )
    if not has_bias:
        return params
    # each an array of its own, or they could not be donated
    zeros = lambda *shape: jnp.zeros(shape, dtype)
    return params._replace(
        b_q=zeros(num_heads, head_features),
        b_k=zeros(num_kv_heads, head_features),
        b_v=zeros(num_kv_heads, head_features),
        b_o=zeros(out_features),
    )
