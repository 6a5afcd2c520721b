"""Random keys as the arrays of bits that they wrap."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.check import as_array


def kind_of(a: Any) -> Any:
    """The implementation of a random key; None if `a` is no key."""
    dtype = getattr(a, "dtype", None)
    is_key = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return jax.random.key_impl(a) if is_key else None


def unwrapped(a: Any, name: str) -> Any:
    return as_array(a, name) if kind_of(a) is None else jax.random.key_data(a)


def wrapped(a: Any, kind: Any) -> Any:
    return a if kind is None else jax.random.wrap_key_data(a, impl=kind)
