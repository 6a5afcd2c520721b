"""Which steps of a run are valid, and which of them begin afresh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_lengths, check_mask
from jaxseq._base.mesh import scan


class Masks(NamedTuple):
    """Masks of the steps, time first; None is True everywhere."""

    valid: Array | None  # (T, ...)
    keep: Array | None  # (T, ...), False where a step begins at the start


def valid_steps(
    lengths: Any, mask: Any, batch: tuple[int, ...], T: int
) -> Array | None:
    """Of `lengths` `(...)` and `mask` `(..., T)`, both checked; None if all are."""
    valid = None if mask is None else check_mask(mask, (*batch, T), "mask")
    if lengths is None:
        return valid
    ends = check_lengths(lengths, batch, T)[..., None]
    inside = jnp.arange(T, dtype=jnp.int32) < ends
    return inside if valid is None else inside & valid


def make_masks(
    T: int,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    reverse: bool,
) -> Masks:
    """Of `lengths` `(...)` and `mask` and `resets` `(..., T)`."""
    valid = mask
    if lengths is not None:
        steps = jnp.arange(T, dtype=lengths.dtype)
        steps = jnp.expand_dims(steps, tuple(range(lengths.ndim)))
        inside = steps < lengths[..., None]
        valid = inside if mask is None else inside & mask
    keep = None
    if resets is not None:
        first = resets if valid is None else resets & valid
        if reverse and mask is None:
            # read backwards, a segment starts just before the next one's first step
            first = _shifted(first)
        elif reverse and valid is not None:
            # the next valid one
            by_time = jnp.moveaxis(valid, -1, 0), jnp.moveaxis(first, -1, 0)
            first = jnp.moveaxis(_of_next(*by_time), 0, -1) & valid
        keep = ~first
    by_time = lambda m: None if m is None else jnp.moveaxis(m, -1, 0)
    return Masks(by_time(valid), by_time(keep))


def _shifted(a: Array) -> Array:
    return jnp.concatenate([a[..., 1:], jnp.zeros_like(a[..., :1])], -1)


def _of_next(valid: Array, flags: Array) -> Array:
    """At each step the flag of the next valid one, `(T, ...)`; False after the last."""

    def body(later: Array, now: Any) -> Any:
        valid, flag = now
        return jnp.where(valid, flag, later), later

    last = jnp.zeros_like(flags, shape=flags.shape[1:])
    return scan(body, last, (valid, flags), reverse=True)[1]


def select(mask: Array | None, on: Any, off: Any = None) -> Any:
    """`on` `(..., F)` where the mask `(...)` is True or None, else `off` or 0."""
    if mask is None:
        return on
    if off is None:
        off = jax.tree.map(jnp.zeros_like, on)

    def one(a: Array, b: Array) -> Array:
        wide = mask.reshape(*mask.shape, *[1] * (a.ndim - mask.ndim))
        return jnp.where(wide, a, b)

    return jax.tree.map(one, on, off)
