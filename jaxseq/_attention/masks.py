"""Which keys each query may use."""

from functools import reduce
from operator import and_
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import (
    check,
    check_flag,
    check_lengths,
    check_sizes,
    is_whole,
    of_values,
)


def within(lengths: Any, shape: tuple[int, ...]) -> Array:
    """Which of the S steps are within the lengths, for a shape `(..., S)`."""
    *batch, S = shape
    ends = check_lengths(lengths, tuple(batch), S)[..., None]
    return jnp.arange(S, dtype=jnp.int32) < ends


def visible(
    query: Array,
    keys: Array,
    lengths: Any,
    mask: Any,
    *,
    num_heads: int | None = None,
    causal: Any = False,
    window: Any = None,
) -> Array | None:
    """Which keys each query may use, by all of these; None if each may use all.

    Of the rank of `(..., T, S)`, or of `(..., N, T, S)` with a mask for each head;
    axes over which it does not change may have size 1.
    """
    batch, T, S = query.shape[:-2], query.shape[-2], keys.shape[-2]
    shape, found = (*batch, T, S), []
    if mask is not None:
        mask = of_values(mask, "mask")
        if num_heads is not None and mask.ndim == len(shape) + 1:
            shape = (*batch, num_heads, T, S)
        _check_broadcasts(mask, shape)
        found.append(mask)
    if lengths is not None:
        inside = within(lengths, (*batch, S))[..., None, :]
        found.append(inside if len(shape) == query.ndim else inside[..., None, :, :])
    if check_flag(causal, "causal") or window is not None:
        found.append(near(T, S, causal, window))
    if not found:
        return None
    valid = reduce(and_, found)
    return jnp.expand_dims(valid, range(len(shape) - valid.ndim))


def hide(
    query: Array, keys: Array, values: Array, valid: Array | None
) -> tuple[Array, Array]:
    """Keys and values, zero where no query may use them."""
    if valid is None:
        return keys, values
    used = valid.any(-2 if valid.ndim == query.ndim else (-3, -2))[..., None]
    return jnp.where(used, keys, 0), jnp.where(used, values, 0)


def _check_broadcasts(mask: Array, shape: tuple[int, ...]) -> None:
    check(mask.ndim >= 1, "mask", "an array of booleans", mask)
    pairs = zip(mask.shape[::-1], shape[::-1], strict=False)
    ok = mask.ndim <= len(shape) and all(m in (1, n) for m, n in pairs)
    check(ok, "mask", f"a shape that broadcasts to {shape}", mask.shape)
    check(mask.dtype == jnp.bool_, "mask", "dtype bool", mask.dtype)


def near(T: Any, S: Any, causal: bool, window: Any) -> Array:
    """Which keys are near enough to each query in time, `(T, S)`."""
    t, s = jnp.arange(T, dtype=jnp.int32)[:, None], jnp.arange(S, dtype=jnp.int32)
    before = s <= t
    if window is None:
        return before
    check_sizes(window=window)
    if is_whole(window):
        window = min(int(window), jnp.iinfo(jnp.int32).max)
    recent = t - s < window
    return recent & (before if causal else s - t < window)
