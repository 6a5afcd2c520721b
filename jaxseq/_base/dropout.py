"""Dropout: values set to zero at random, of the kind that layers have between them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check


def check_dropout(rate: float, key: Any) -> None:
    check(0 <= rate < 1, "dropout", "a probability in [0, 1)", rate)
    check(key is not None or rate == 0, "key", "a random key for dropout", key)


def drop(x: Array, rate: float, key: Array | None) -> Array:
    """Each value zero with probability `rate`, else divided by what is left of 1."""
    if rate == 0 or key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)
