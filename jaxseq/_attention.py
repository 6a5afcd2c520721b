"""Attention: each query's mean of values, weighted by how well their keys fit it.

Shapes: T queries `(..., T, Q)`, S keys `(..., S, K)` and as many values
`(..., S, V)`, time at axis -2 as everywhere. Every function returns
`(context, weights)`, `(..., T, V)` and `(..., T, S)`. A query with no valid key has
zeros for both. What is padding by `lengths` may be NaN.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._cell import state_dtype
from jaxseq._check import (
    as_array,
    check,
    check_array,
    check_dtype,
    check_lengths,
    check_sizes,
)


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


def additive_attention(
    params: AdditiveParams,
    query: Array,
    keys: Array,
    values: Array | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `v . tanh(q w_q + k w_k)`.

    Args:
        params: weights.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, `(...)`; all S if None.
        mask: booleans `(..., T, S)`, False where a query may not use a key; what
            this alone hides must be finite.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to
    Align and Translate", 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2. The
    form "concat" of Luong, Pham and Manning, 2015, `v . tanh([q k] W)`, is the same
    with `w_q` and `w_k` as the upper and lower rows of W.
    """
    ok = isinstance(params, AdditiveParams)
    check(ok, "params", "AdditiveParams", type(params).__name__)
    query, keys, values, valid = _inputs(query, keys, values, lengths, mask)
    w_q, w_k, v = map(jnp.asarray, params)
    (Q, K), A = (query.shape[-1], keys.shape[-1]), v.shape[-1]
    for name, w, shape in (("w_q", w_q, (Q, A)), ("w_k", w_k, (K, A)), ("v", v, (A,))):
        check_array(w, f"params.{name}", shape, query.dtype)
    return _additive(params, query, keys @ w_k, values, valid)


def general_attention(
    w: Array,
    query: Array,
    keys: Array,
    values: Array | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `q w . k`.

    Args:
        w: weights, `(Q, K)`.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, `(...)`; all S if None.
        mask: booleans `(..., T, S)`, False where a query may not use a key.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    The form "general" of Luong, Pham and Manning, "Effective Approaches to
    Attention-based Neural Machine Translation", 2015,
    https://arxiv.org/abs/1508.04025, section 3.1.
    """
    query, keys, w = as_array(query, "query"), as_array(keys, "keys"), jnp.asarray(w)
    check_array(w, "w", (*query.shape[-1:], *keys.shape[-1:]), query.dtype)
    how: Any = {"lengths": lengths, "mask": mask, "scale": 1.0}
    return dot_attention(query @ w, keys, values, **how)


def dot_attention(
    query: Array,
    keys: Array,
    values: Array | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `scale * q . k`.

    Args:
        query: `(..., T, K)`. It must be finite, though padding of the keys need not
            be: for `dot_attention(x, x)` the padding of x has to be set to zero.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, `(...)`; all S if None.
        mask: booleans `(..., T, S)`, False where a query may not use a key; what
            this alone hides must be finite.
        causal: whether query t may use the keys 0 to t only.
        scale: factor of the scores; `K ** -0.5` if None, and 1 is the form "dot" of
            Luong, Pham and Manning, 2015, https://arxiv.org/abs/1508.04025.
        implementation: that of `jax.nn.dot_product_attention`, "xla" or "cudnn", for
            values as wide as the keys and not in float64; None chooses. In bfloat16
            their gradients need the standard promotion of dtypes.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`. Under `jit` weights
        that are not used are not computed.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Vaswani and others, "Attention Is All You Need", 2017,
    https://arxiv.org/abs/1706.03762, section 3.2.1.
    """
    query, keys, values, valid = _inputs(query, keys, values, lengths, mask, causal)
    same = query.shape[-1] == keys.shape[-1]
    check(same, "query", f"width {keys.shape[-1]}, that of the keys", query.shape)
    q, k, v = query[..., None, :], keys[..., None, :], values[..., None, :]
    context, weights = _dot(q, k, v, valid, scale, implementation)
    return context[..., 0, :], weights[..., 0, :, :]


def multi_head_attention(
    params: MultiHeadParams,
    query: Array,
    keys: Array | None = None,
    values: Array | None = None,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
    causal: bool = False,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Scaled dot-product attention in several heads, each with maps of its own.

    Args:
        params: weights.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`; the queries if None, and then `lengths` holds for both.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, `(...)`; all S if None.
        mask: booleans `(..., T, S)`, False where a query may not use a key; what
            this alone hides must be finite.
        causal: whether query t may use the keys 0 to t only.
        implementation: that of `jax.nn.dot_product_attention`, "xla" or "cudnn", not
            in float64; None chooses. In bfloat16 their gradients need the standard
            promotion of dtypes.

    Returns:
        `(context, weights)`, `(..., T, O)` and, of each head, `(..., N, T, S)`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Vaswani and others, "Attention Is All You Need", 2017,
    https://arxiv.org/abs/1706.03762, section 3.2.2. A query with no valid key gives
    the bias `b_o`.
    """
    ok = isinstance(params, MultiHeadParams)
    check(ok, "params", "MultiHeadParams", type(params).__name__)
    own = keys is None
    keys = query if keys is None else keys
    query, keys, values, valid = _inputs(query, keys, values, lengths, mask, causal)
    query = keys if own else query  # with zeros for its padding
    params = jax.tree.map(jnp.asarray, params)
    _check_heads(params, query, keys, values)
    k, v = heads_of(params, keys, values)
    return attend_heads(params, query, k, v, valid, implementation=implementation)


# Inside models: what does not depend on the query is made once.
Score = AdditiveParams | MultiHeadParams | Dot | ScaledDot | Array


def prepare(score: Score, values: Array) -> Any:
    """The keys of `values`, `(..., S, K)`, as `attend` takes them."""
    if isinstance(score, AdditiveParams):
        return values @ score.w_k
    if isinstance(score, MultiHeadParams):
        return heads_of(score, values, values)
    return None


def attend(
    score: Score, query: Array, keys: Any, values: Array, valid: Array | None
) -> tuple[Array, Array]:
    """Context and weights of queries `(..., T, Q)`; `valid` is `(..., S)`."""
    if valid is not None:
        shape = (*query.shape[:-1], values.shape[-2])
        valid = jnp.broadcast_to(valid[..., None, :], shape)
    if isinstance(score, AdditiveParams):
        return _additive(score, query, keys, values, valid)
    if isinstance(score, MultiHeadParams):
        k, v = keys
        return attend_heads(score, query, k, v, valid)
    if isinstance(score, ScaledDot):
        return dot_attention(query, values, mask=valid)
    query = query if isinstance(score, Dot) else query @ score
    return dot_attention(query, values, mask=valid, scale=1.0)


def heads_of(
    params: MultiHeadParams, keys: Array, values: Array
) -> tuple[Array, Array]:
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
    """Attention of queries `(..., T, Q)` to heads; `valid` is `(..., T, S)`."""
    q = split_heads(query, params.w_q, params.b_q)
    q = q if rotate is None else rotate(q)
    context, weights = _dot(q, k, v, valid, None, implementation)
    return join_heads(context, params.w_o, params.b_o), weights


def split_heads(a: Array, w: Array, b: Array | None) -> Array:
    """`a w + b` by head: (..., T, width) to (..., T, N, A)."""
    heads = jnp.einsum("...d,dna->...na", a, w)
    return heads if b is None else heads + b


def join_heads(heads: Array, w: Array, b: Array | None) -> Array:
    """(..., T, N, A) to (..., T, O)."""
    joined = jnp.einsum("...na,nao->...o", heads, w)
    return joined if b is None else joined + b


def _additive(
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


def _dot(
    query: Array,
    keys: Array,
    values: Array,
    valid: Array | None,
    scale: float | None,
    implementation: str | None,
) -> tuple[Array, Array]:
    """Of heads: (..., T, N, A), (..., S, N, A) and values (..., S, N, V)."""
    dtype, same = query.dtype, values.shape[-1] == keys.shape[-1]
    _check_implementation(implementation, dtype, same)
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


def _check_implementation(implementation: Any, dtype: Any, same: bool) -> None:
    known = (None, "xla", "cudnn")
    name, got, ok = "implementation", repr(implementation), implementation in known
    check(ok, name, f"one of {known}", got)
    if implementation is not None:
        check(dtype != jnp.float64, name, "None for float64", got)
        check(same, name, "None for values of another width than the keys", got)


def _inputs(
    query: Any, keys: Any, values: Any, lengths: Any, mask: Any, causal: bool = False
) -> tuple[Array, Array, Array, Array | None]:
    """Checks them; returns arrays, and which keys are valid (..., T, S) if not all."""
    values = keys if values is None else values
    arrays = [
        as_array(a, name)
        for a, name in ((query, "query"), (keys, "keys"), (values, "values"))
    ]
    query, keys, values = arrays
    check_dtype(query.dtype, "query")
    check(query.ndim >= 2, "query", "shape (..., T, Q)", query.shape)
    batch, T = query.shape[:-2], query.shape[-2]
    S = keys.shape[-2] if keys.ndim >= 2 else 0
    for a, name in ((keys, "keys"), (values, "values")):
        expected = f"shape ({', '.join(map(str, (*batch, S)))}, {name[0].upper()})"
        check(a.shape[:-1] == (*batch, S), name, expected, a.shape)
        check(a.dtype == query.dtype, name, f"dtype {query.dtype}", a.dtype)
    valid = None
    if lengths is not None:
        ends = check_lengths(lengths, batch, S)[..., None]
        inside = jnp.arange(S, dtype=jnp.int32) < ends
        keys, values = (jnp.where(inside[..., None], a, 0) for a in (keys, values))
        valid = jnp.broadcast_to(inside[..., None, :], (*batch, T, S))
    if mask is not None:
        mask = jnp.asarray(mask)
        check_array(mask, "mask", (*batch, T, S), jnp.bool_)
        valid = mask if valid is None else valid & mask
    if causal:
        before = jnp.tril(jnp.ones((T, S), jnp.bool_))
        every = jnp.broadcast_to(before, (*batch, T, S))
        valid = every if valid is None else valid & every
    return query, keys, values, valid


def _check_heads(params: MultiHeadParams, query: Any, keys: Any, values: Any) -> None:
    ok = params.w_q.ndim == 3 and params.w_o.ndim == 3
    ranks = params.w_q.ndim, params.w_o.ndim
    check(ok, "params", "w_q and w_o of rank 3", f"ranks {ranks}")
    (_, N, A), O = params.w_q.shape, params.w_o.shape[-1]
    shapes = {
        "w_q": (query.shape[-1], N, A),
        "w_k": (keys.shape[-1], N, A),
        "w_v": (values.shape[-1], N, A),
        "w_o": (N, A, O),
        **dict.fromkeys(("b_q", "b_k", "b_v"), (N, A)),
        "b_o": (O,),
    }
    for name, w in params._asdict().items():
        if w is not None:
            check_array(w, f"params.{name}", shapes[name], query.dtype)
