"""Steps of arrays over time, read and written, in all or in some rows."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

WHOLE = slice(None)
Rows = slice | int  # of the first axis of the batch; without that axis, if a number


def at(a: Array, t: Any, rows: Rows = WHOLE, axis: int = 0) -> Array:
    """Step `t` of `a`, whose time is that axis, in those rows."""
    return of_rows(lax.dynamic_index_in_dim(a, t, axis, keepdims=False), rows)


def put(a: Array, value: Array, t: Any, rows: Rows = WHOLE, axis: int = 0) -> Array:
    """`a`, whose time is that axis, with `value` at step `t`, in those rows."""
    if isinstance(rows, int):
        value, rows = value[None], slice(rows, rows + 1)
    start: list[Any] = [0] * value.ndim
    if rows.start:
        start[0] = rows.start
    axis %= a.ndim
    start.insert(axis, t)
    return lax.dynamic_update_slice(a, jnp.expand_dims(value, axis), start)


def of_rows(a: Array, rows: Rows) -> Array:
    return a if rows == WHOLE else a[rows]


def join(states: Any, halves: list[Rows]) -> Any:
    if len(states) == 1:
        return states[0]
    joined = jnp.stack if isinstance(halves[0], int) else jnp.concatenate
    return jax.tree.map(lambda *s: joined(s), *states)
