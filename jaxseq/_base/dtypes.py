"""The dtypes of arrays, and those that sums are taken in."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

FLOATS = ("float64", "float32", "bfloat16", "float16")


def state_dtype(dtype: Any) -> Any:
    """The dtype of states and sums: float32 for the 16-bit dtypes, else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def widened(tree: Any) -> Any:
    """The floats of a tree in `state_dtype`, so that their gradients are summed in it.

    Those over devices too: XLA for TPUs moves a cast to 16 bits before such a sum, but
    not past the rounding that stands here before the cast.
    """
    narrow = lambda a: is_float(a) and a.dtype != state_dtype(a.dtype)
    return jax.tree.map(lambda a: _widened(a) if narrow(a) else a, tree)


@jax.custom_jvp
def _widened(a: Array) -> Array:
    return a.astype(state_dtype(a.dtype))


@_widened.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a,), (d,) = primals, tangents
    # the exponent stays as it is, for float16's small numbers are not to become zero
    bits = {"exponent_bits": 8, "mantissa_bits": jnp.finfo(a.dtype).nmant}
    return _widened(a), jax.lax.reduce_precision(_widened(d), **bits)


def is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def floats(tree: Any) -> Any:
    """A tree with None in place of what is not float, and so has no gradient."""
    return jax.tree.map(lambda a: a if is_float(a) else None, tree)


def with_floats(some: Any, tree: Any) -> Any:
    """A tree with the floats of `some`, which has None for the other leaves."""
    is_none = lambda a: a is None
    return jax.tree.map(lambda a, b: b if a is None else a, some, tree, is_leaf=is_none)
