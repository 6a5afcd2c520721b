"""Dropout: values set to zero at random, of the kind that layers have between them."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check, check_key, check_number


def check_rate(rate: Any, name: str = "dropout") -> None:
    """Checks the probability, which may be traced."""
    check_number(rate, name, "a probability in [0, 1)", lambda p: (0 <= p) & (p < 1))


def check_dropout(rate: Any, key: Any) -> None:
    """Checks the probability, and that there is a key for it."""
    check_rate(rate)
    ok = key is not None or is_zero(rate)
    check(ok, "key", "a random key for dropout", key)
    if key is not None:
        check_key(key)


def is_zero(rate: Any) -> bool:
    """Whether it is known to be 0."""
    return not isinstance(rate, jax.core.Tracer) and float(rate) == 0


def drop(x: Array, rate: Any, key: Array | None, *, same: bool = False) -> Array:
    """Each value zero with probability `rate`, else divided by what is left of 1.

    If `same`, the same features of `x` `(..., T, D)` at every step.
    """
    if key is None or is_zero(rate):
        return x
    rest = 1 - rate
    shape = (*x.shape[:-2], 1, x.shape[-1]) if same else x.shape
    kept = jax.random.bernoulli(key, rest, shape)
    return jnp.where(kept, x / jnp.asarray(rest, x.dtype), 0)
