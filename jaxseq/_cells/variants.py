"""What the makers of the variants share."""

from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check, check_dtype, check_key, check_sizes
from jaxseq._cells.check import known_number
from jaxseq._cells.init import cell_init, glorot_gates
from jaxseq._engine.params import CellParams

T = TypeVar("T")


def first_of_equals(cell: T) -> T:
    """The first of equal cells or updates: what is compiled for one lives as long.

    One with a function that closes over something is not held, for that may be large,
    or known only in a trace.
    """
    try:
        return cell if _closes(cell) else _first(cell)
    except TypeError:  # a part has no hash, as arrays have none
        return cell


@lru_cache(maxsize=64)
def _first(cell: Any) -> Any:
    return cell


def _closes(part: Any) -> bool:
    if isinstance(part, tuple):
        return any(map(_closes, part))
    if is_dataclass(part):
        return any(_closes(getattr(part, field.name)) for field in fields(part))
    return getattr(part, "__closure__", None) is not None


def drawn(key: Array, D: int, n: int, gates: int, w_h: Any, dtype: Any) -> CellParams:
    check_key(key)
    check_sizes(D=D)
    check_dtype(dtype, "dtype")
    key_x, key_h = jax.random.split(key)
    params = cell_init(key_h, None, None, w_h, dtype=dtype)
    w_x = glorot_gates(key_x, D, n, gates, dtype)
    return params._replace(w_x=w_x, b=jnp.zeros(gates * n, dtype))


def known_clip(clip: Any) -> float | None:
    return None if clip is None else above_0(clip, "clip")


def above_0(number: Any, name: str) -> float:
    return known_number(number, name, "a number above 0", lambda n: n > 0)


def shape_of(H: int, Z: int, heads: int) -> tuple[int, ...]:
    check(H % heads == 0, "H", f"a multiple of {heads}, the number of heads", H)
    return (H, Z) if heads == 1 else (heads, H // heads, Z // heads)


def width_of(w_h: Array, heads: int) -> Any:
    """H of a matrix, or of its blocks."""
    if heads == 1:
        check(w_h.ndim == 2, "params.w_h", "shape (H, Z)", w_h.shape)
        return w_h.shape[0]
    expected = f"shape ({heads}, H / {heads}, Z / {heads})"
    check(w_h.ndim == 3 and w_h.shape[0] == heads, "params.w_h", expected, w_h.shape)
    return heads * w_h.shape[1]
