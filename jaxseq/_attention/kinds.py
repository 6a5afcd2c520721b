"""The kinds of attention with one head, as users call them."""

from jax import Array
from jax.typing import ArrayLike

from jaxseq._attention.inputs import (
    as_params,
    check_additive,
    check_arrays,
    check_implementation,
    check_scale,
)
from jaxseq._attention.masks import hide, visible
from jaxseq._attention.params import AdditiveParams
from jaxseq._attention.scores import additive, dot
from jaxseq._base.check import as_array, check, check_array
from jaxseq._base.linear import linear


def additive_attention(
    params: AdditiveParams,
    query: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `v . tanh(q w_q + k w_k)`.

    Args:
        params: weights.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, integers `(...)`; all S if None.
        mask: booleans that broadcast to `(..., T, S)`, False where a query may not
            use a key: `(T, S)` for all sequences alike, `(..., 1, S)` for all
            queries. With `lengths` a key has to be valid by both.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`; zeros for a query that
        may use no key.

    Raises:
        ValueError: if an argument is no array, or its shape or dtype is not the one
            above; if a length is not in 0…S.

    A key that no query may use may be NaN or infinite, and so may its value. All else
    must be finite.

    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to
    Align and Translate", 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2. The
    form "concat" of Luong, Pham and Manning, 2015, `v . tanh([q k] W)`, is the same
    with `w_q` and `w_k` as the upper and lower rows of W.

    Example:
        >>> params = jaxseq.additive_init(jax.random.key(0), 4, 6, 8)
        >>> query, keys = jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6))
        >>> lengths = jnp.array([5, 2])
        >>> _, weights = jaxseq.additive_attention(params, query, keys, lengths=lengths)
        >>> weights[1, 0].tolist()
        [0.5, 0.5, 0.0, 0.0, 0.0]
    """
    params = as_params(params, AdditiveParams)
    query, keys, values = check_arrays(query, keys, values)
    check_additive(params, query, keys)
    valid = visible(query, keys, lengths, mask)
    keys, values = hide(query, keys, values, valid)
    return additive(params, query, linear(keys, params.w_k), values, valid)


def general_attention(
    w: ArrayLike,
    query: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `q w . k`.

    Args:
        w: weights, `(Q, K)`.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, integers `(...)`; all S if None.
        mask: booleans that broadcast to `(..., T, S)`, False where a query may not
            use a key: `(T, S)` for all sequences alike, `(..., 1, S)` for all
            queries. With `lengths` a key has to be valid by both.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`; zeros for a query that
        may use no key.

    Raises:
        ValueError: if an argument is no array, or its shape or dtype is not the one
            above; if a length is not in 0…S.

    A key that no query may use may be NaN or infinite, and so may its value. All else
    must be finite.

    The form "general" of Luong, Pham and Manning, "Effective Approaches to
    Attention-based Neural Machine Translation", 2015,
    https://arxiv.org/abs/1508.04025, section 3.1.

    Example:
        >>> w, query, keys = jnp.ones((4, 6)), jnp.ones((2, 3, 4)), jnp.ones((2, 5, 6))
        >>> context, weights = jaxseq.general_attention(w, query, keys)
        >>> context.shape, weights.shape
        ((2, 3, 6), (2, 3, 5))
    """
    query, keys, values = check_arrays(query, keys, values)
    w = as_array(w, "w")
    check_array(w, "w", (query.shape[-1], keys.shape[-1]), query.dtype)
    valid = visible(query, keys, lengths, mask)
    keys, values = hide(query, keys, values, valid)
    return dot(linear(query, w), keys, values, valid, scale=1.0)


def dot_attention(
    query: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: ArrayLike | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Attention with scores `scale * q . k`.

    Args:
        query: `(..., T, K)`.
        keys: `(..., S, K)`.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, integers `(...)`; all S if None.
        mask: booleans that broadcast to `(..., T, S)`, False where a query may not
            use a key: `(T, S)` for all sequences alike, `(..., 1, S)` for all
            queries. With other options a key has to be valid by all of them.
        causal: whether query t may use the keys 0 to t only.
        window: the sliding window of Beltagy, Peters and Cohan, 2020,
            https://arxiv.org/abs/2004.05150: query t may use key s only if
            `|t - s| < window`; if `causal`, these are t and the `window - 1` keys
            before it. No limit if None.
        scale: factor of the scores, a number or an array of one, which may be traced;
            `K ** -0.5` if None, and 1 is the form "dot" of Luong, Pham and Manning,
            2015, https://arxiv.org/abs/1508.04025.
        implementation: that of `jax.nn.dot_product_attention`, "xla" or "cudnn", for
            values as wide as the keys and not in float64; None chooses. In bfloat16
            their gradients need the standard promotion of dtypes.

    Returns:
        `(context, weights)`, `(..., T, V)` and `(..., T, S)`; zeros for a query that
        may use no key. Under `jit` weights that are not used are not computed.

    Raises:
        ValueError: if an argument is no array, or its shape or dtype is not the one
            above; if a length is not in 0…S; if `causal` is no boolean, `window` no
            integer of at least 1 or `scale` not finite; if `implementation` is
            another, or does not run these dtypes and widths.

    A key that no query may use may be NaN or infinite, and so may its value. All else
    must be finite, the queries too: for `dot_attention(x, x, lengths=lengths)` set the
    padding of x to zero.

    Vaswani and others, "Attention Is All You Need", 2017,
    https://arxiv.org/abs/1706.03762, section 3.2.1.

    Example:
        >>> x = jnp.ones((2, 4, 6))
        >>> context, weights = jaxseq.dot_attention(x, x, causal=True, window=2)
        >>> weights[0].tolist()[:3]
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    """
    query, keys, values = check_arrays(query, keys, values)
    K, V = keys.shape[-1], values.shape[-1]
    check(query.shape[-1] == K, "query", f"width {K}, that of the keys", query.shape)
    check_implementation(implementation, query.dtype, V == K)
    check_scale(scale, implementation)
    valid = visible(query, keys, lengths, mask, causal=causal, window=window)
    keys, values = hide(query, keys, values, valid)
    return dot(query, keys, values, valid, scale, implementation)
