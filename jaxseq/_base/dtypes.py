"""The dtypes of arrays, and those that sums are taken in."""

from typing import Any

import jax
import jax.numpy as jnp

FLOATS = ("float64", "float32", "bfloat16", "float16")


def state_dtype(dtype: Any) -> Any:
    """The dtype of states and sums: float32 for the 16-bit dtypes, else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def floats(tree: Any) -> Any:
    """A tree with None in place of what is not float, and so has no gradient."""
    return jax.tree.map(lambda a: a if is_float(a) else None, tree)


def with_floats(some: Any, tree: Any) -> Any:
    """A tree with the floats of `some`, which has None for the other leaves."""
    is_none = lambda a: a is None
    return jax.tree.map(lambda a, b: b if a is None else a, some, tree, is_leaf=is_none)
