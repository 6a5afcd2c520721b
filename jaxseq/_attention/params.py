"""Weights of attention, and how they start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_dtype, check_sizes


class AdditiveParams(NamedTuple):
    """Weights of additive attention, for scores from A hidden units."""

    w_q: Array  # (Q, A)
    w_k: Array  # (K, A)
    v: Array  # (A,)


class MultiHeadParams(NamedTuple):
    """Weights of N heads of width A, for outputs of width O; no bias where None."""

    w_q: Array  # (Q, N, A)
    w_k: Array  # (K, N, A)
    w_v: Array  # (V, N, A)
    w_o: Array  # (N, A, O)
    b_q: Array | None = None  # (N, A)
    b_k: Array | None = None  # (N, A)
    b_v: Array | None = None  # (N, A)
    b_o: Array | None = None  # (O,)


class Dot(NamedTuple):
    """Stands for the score `q . k`, which has no weights, in a model's weights."""


class ScaledDot(NamedTuple):
    """Stands for the score `q . k / sqrt(K)` in a model's weights."""


def additive_init(
    key: Array, Q: int, K: int, A: int, *, dtype: Any = jnp.float32
) -> AdditiveParams:
    """Draws weights for queries of width `Q` and keys of width `K`.

    Args:
        key: random key.
        Q: width of the queries.
        K: width of the keys.
        A: number of hidden units.
        dtype: of the weights.

    Returns:
        `AdditiveParams`, all Glorot uniform.

    Raises:
        ValueError: if a size is not positive or `dtype` not a float.
    """
    check_sizes(Q=Q, K=K, A=A)
    check_dtype(dtype, "dtype")
    q, k, v = jax.random.split(key, 3)
    glorot = jax.nn.initializers.glorot_uniform()
    w_q, w_k = glorot(q, (Q, A), dtype), glorot(k, (K, A), dtype)
    return AdditiveParams(w_q, w_k, glorot(v, (A, 1), dtype)[:, 0])


def multi_head_init(
    key: Array,
    Q: int,
    N: int,
    A: int,
    *,
    K: int | None = None,
    V: int | None = None,
    O: int | None = None,
    bias: bool = True,
    dtype: Any = jnp.float32,
) -> MultiHeadParams:
    """Draws weights of `N` heads of width `A` for queries of width `Q`.

    Args:
        key: random key.
        Q: width of the queries.
        N: number of heads.
        A: width of each head.
        K: width of the keys; `Q` if None.
        V: width of the values; `K` if None.
        O: width of the outputs; `Q` if None.
        bias: whether the four maps have biases, zero at first.
        dtype: of the weights.

    Returns:
        `MultiHeadParams`, the maps Glorot uniform, each as one (width, N A) matrix.

    Raises:
        ValueError: if a size is not positive or `dtype` not a float.
    """
    K = Q if K is None else K
    V, O = K if V is None else V, Q if O is None else O
    check_sizes(Q=Q, N=N, A=A, K=K, V=V, O=O)
    check_dtype(dtype, "dtype")
    glorot = jax.nn.initializers.glorot_uniform()
    q, k, v, o = jax.random.split(key, 4)
    into = lambda key, width: glorot(key, (width, N * A), dtype).reshape(width, N, A)
    maps = into(q, Q), into(k, K), into(v, V)
    w_o = glorot(o, (N * A, O), dtype).reshape(N, A, O)
    if not bias:
        return MultiHeadParams(*maps, w_o)
    # each an array of its own, or they could not be donated
    b_q, b_k, b_v = (jnp.zeros((N, A), dtype) for _ in maps)
    return MultiHeadParams(*maps, w_o, b_q, b_k, b_v, jnp.zeros(O, dtype))
