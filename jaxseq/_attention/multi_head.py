"""Attention in several heads, as users call it."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._attention.inputs import (
    as_params,
    check_arrays,
    check_heads,
    check_implementation,
)
from jaxseq._attention.masks import hide, visible, within
from jaxseq._attention.params import MultiHeadParams


def multi_head_attention(
    params: MultiHeadParams,
    query: ArrayLike,
    keys: ArrayLike | None = None,
    values: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    causal: bool = False,
    window: int | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Scaled dot-product attention in several heads, each with maps of its own.

    Args:
        params: weights. With fewer heads of keys and values than of queries
            (grouped-query attention) neighbouring heads of queries share one.
        query: `(..., T, Q)`.
        keys: `(..., S, K)`; the queries if None, and then `lengths` holds for both.
        values: `(..., S, V)`; the keys if None.
        lengths: number of valid keys, integers `(...)`; all S if None.
        mask: booleans that broadcast to `(..., T, S)`, False where a query may not
            use a key: `(T, S)` for all sequences alike, `(..., 1, S)` for all
            queries. With one axis more than the queries have, they broadcast to
            `(..., N, T, S)`, a mask for each head. With other options a key has to
            be valid by all of them.
        causal: whether query t may use the keys 0 to t only.
        window: the sliding window of Beltagy, Peters and Cohan, 2020,
            https://arxiv.org/abs/2004.05150: query t may use key s only if
            `|t - s| < window`; if `causal`, these are t and the `window - 1` keys
            before it. No limit if None.
        implementation: that of `jax.nn.dot_product_attention`, "xla" or "cudnn", not
            in float64; None chooses. In bfloat16 their gradients need the standard
            promotion of dtypes.

    Returns:
        `(context, weights)`, `(..., T, O)` and, of each head, `(..., N, T, S)`. A
        query that may use no key has the bias `b_o`, and weights of zero.

    Raises:
        ValueError: if an argument is no array, or its shape or dtype is not the one
            above; if the heads of keys do not divide those of queries; if a length
            is not in 0…S; if `causal` is no boolean or `window` no integer of at
            least 1; if `implementation` is another, or does not run this dtype.

    A key that no query may use may be NaN or infinite, and so may its value. All else
    must be finite, the queries too, but for what `lengths` cuts if `keys` is None.

    Vaswani and others, "Attention Is All You Need", 2017,
    https://arxiv.org/abs/1706.03762, section 3.2.2. Grouped queries: Ainslie and
    others, "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
    Checkpoints", 2023, https://arxiv.org/abs/2305.13245.

    Example:
        >>> params = jaxseq.multi_head_init(jax.random.key(0), 8, 4, 2, num_kv_heads=2)
        >>> x = jnp.ones((2, 5, 8))
        >>> context, weights = jaxseq.multi_head_attention(params, x, causal=True)
        >>> context.shape, weights.shape
        ((2, 5, 8), (2, 4, 5, 5))
    """
    params = as_params(params, MultiHeadParams)
    own = keys is None
    query, keys, values = check_arrays(query, query if own else keys, values)
    check_heads(params, query, keys, values)
    check_implementation(implementation, query.dtype)
    valid = visible(
        query,
        keys,
        lengths,
        mask,
        num_heads=params.w_q.shape[1],
        causal=causal,
        window=window,
    )
    keys, values = hide(query, keys, values, valid)
    if own and lengths is not None:
        inside = within(lengths, query.shape[:-1])
        query = jnp.where(inside[..., None], query, 0)
    k, v = heads_of(params, keys, values)
    return attend_heads(params, query, k, v, valid, implementation=implementation)
