"""The kinds of attention, as users call them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._attention.inputs import check_heads, check_inputs
from jaxseq._attention.params import AdditiveParams, MultiHeadParams
from jaxseq._attention.scores import additive, dot
from jaxseq._base.check import as_array, check, check_array


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
    query, keys, values, valid = check_inputs(query, keys, values, lengths, mask)
    w_q, w_k, v = map(jnp.asarray, params)
    (Q, K), A = (query.shape[-1], keys.shape[-1]), v.shape[-1]
    for name, w, shape in (("w_q", w_q, (Q, A)), ("w_k", w_k, (K, A)), ("v", v, (A,))):
        check_array(w, f"params.{name}", shape, query.dtype)
    return additive(params, query, keys @ w_k, values, valid)


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
    query, keys, values, valid = check_inputs(
        query, keys, values, lengths, mask, causal
    )
    same = query.shape[-1] == keys.shape[-1]
    check(same, "query", f"width {keys.shape[-1]}, that of the keys", query.shape)
    q, k, v = query[..., None, :], keys[..., None, :], values[..., None, :]
    context, weights = dot(q, k, v, valid, scale, implementation)
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
    query, keys, values, valid = check_inputs(
        query, keys, values, lengths, mask, causal
    )
    query = keys if own else query  # with zeros for its padding
    params = jax.tree.map(jnp.asarray, params)
    check_heads(params, query, keys, values)
    k, v = heads_of(params, keys, values)
    return attend_heads(params, query, k, v, valid, implementation=implementation)
