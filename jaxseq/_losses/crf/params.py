"""Weights of a linear-chain CRF."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_dtype, check_key, check_sizes


class CRFParams(NamedTuple):
    """Weights of a linear-chain CRF over K tags; -inf forbids a transition.

    Fields:
        transitions: from the tag of the row to that of the column, `(K, K)`.
        start: of the first tag, `(K,)`.
        end: of the last tag, `(K,)`.
    """

    transitions: Array
    start: Array
    end: Array


def crf_init(key: Array, K: int, *, dtype: Any = jnp.float32) -> CRFParams:
    """Draws the weights of a CRF over `K` tags.

    Args:
        key: random key.
        K: number of tags.
        dtype: of the weights.

    Returns:
        `CRFParams`, uniform in ±0.1.

    Raises:
        ValueError: if `K` is not positive or `dtype` not a float.

    Example:
        >>> params = jaxseq.crf_init(jax.random.key(0), 5)
        >>> params.transitions.shape, params.start.shape, params.end.shape
        ((5, 5), (5,), (5,))
        >>> never = params.transitions.at[0, 3].set(-jnp.inf)  # tag 3 after tag 0
        >>> params = params._replace(transitions=never)
    """
    check_key(key)
    check_sizes(K=K)
    check_dtype(dtype, "dtype")
    shapes = (K, K), (K,), (K,)
    draw = lambda key, shape: jax.random.uniform(key, shape, dtype, -0.1, 0.1)
    return CRFParams(*map(draw, jax.random.split(key, 3), shapes))
