"""Argument checks: each names the argument, what was expected and what came."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.dtypes import FLOATS


def check(ok: bool, name: str, expected: object, got: object) -> None:
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def check_value(ok: bool, name: str, expected: object, value: Any) -> None:
    """Like `check`; to show an array waits for its values, so only a wrong one is."""
    if not ok:
        check(False, name, expected, repr(value))


def check_dtype(dtype: Any, name: str) -> None:
    try:
        known = dtype is not None and not isinstance(dtype, jax.Array)
        got = jnp.dtype(dtype).name if known else repr(dtype)
    except TypeError:
        got = repr(dtype)
    check(got in FLOATS, name, f"a dtype among {FLOATS}", got)


def is_whole(n: Any) -> bool:
    """Whether it is an integer that is known, and no boolean."""
    if isinstance(n, (bool, jax.core.Tracer)) or not hasattr(n, "__index__"):
        return False
    return getattr(n, "dtype", None) != jnp.bool_ and getattr(n, "shape", ()) == ()


def check_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        ok = is_symbolic_dim(size) or (is_whole(size) and size >= 1)
        check_value(ok, name, "a size of at least 1", size)


def check_batch(batch: Any, name: str = "batch") -> tuple[Any, ...]:
    """Checks axes in front, a tuple or one size, and returns them as a tuple."""
    sizes = batch if type(batch) is tuple else (batch,)
    for n in sizes:
        ok = is_symbolic_dim(n) or (is_whole(n) and n >= 0)
        check_value(ok, name, "a size of at least 0, or a tuple of such", batch)
    return sizes


def check_flag(flag: Any, name: str) -> bool:
    known = not isinstance(flag, jax.core.Tracer)
    array = getattr(flag, "dtype", None) == jnp.bool_ and flag.shape == ()
    ok = known and (isinstance(flag, bool) or array)
    check_value(ok, name, "True or False", flag)
    return bool(flag)


def check_number(
    number: Any,
    name: str,
    expected: str,
    inside: Callable[[Any], Any],
    shape: tuple[int, ...] = (),
) -> None:
    """Checks a number, or an array of one or of `shape`; its values if known."""
    if hasattr(number, "dtype") and hasattr(number, "shape"):
        real = jnp.issubdtype(number.dtype, jnp.floating)
        real |= jnp.issubdtype(number.dtype, jnp.integer)
        ok = real and tuple(number.shape) in ((), shape)
        check(ok, name, expected, f"{number.dtype} {tuple(number.shape)}")
    else:
        ok = isinstance(number, (int, float)) and not isinstance(number, bool)
        check_value(ok, name, expected, number)
    if not isinstance(number, jax.core.Tracer):  # NaN is inside of nothing
        known = jax.device_get(number)
        every = getattr(inside(known), "all", lambda: inside(known))
        check(every(), name, expected, number)


def check_choice(value: Any, name: str, choices: tuple[Any, ...]) -> None:
    ok = any(value is c or (type(value) is type(c) and value == c) for c in choices)
    check_value(ok, name, f"one of {choices}", value)


def check_key(key: Any, name: str = "key") -> None:
    dtype, ndim = getattr(key, "dtype", None), len(getattr(key, "shape", ()))
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    ok = (typed and ndim == 0) or (dtype == jnp.uint32 and ndim == 1)
    check_value(ok, name, "a random key", key)


def check_callable(f: Any, name: str) -> None:
    check_value(callable(f), name, "a function", f)  # which may hold arrays


def check_array(a: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    check(a.shape == shape, name, f"shape {shape}", a.shape)
    check(a.dtype == dtype, name, f"dtype {jnp.dtype(dtype)}", a.dtype)


def as_jax(a: Any) -> Array:
    """`jnp.asarray`, but for what is one already: a tracer would record a cast."""
    return a if isinstance(a, jax.Array) else jnp.asarray(a)


def as_array(x: Any, name: str) -> Array:
    ok = x is not None and not isinstance(x, (tuple, list, dict, str))
    check(ok, name, "an array", type(x).__name__)
    return of_values(x, name)


def of_values(values: Any, name: str) -> Array:
    """An array of what may be a list of numbers too."""
    try:
        if isinstance(values, str):  # some name a dtype, which JAX would take them for
            raise TypeError
        return as_jax(values)
    except (TypeError, ValueError, OverflowError):
        check_value(False, name, "an array", values)
        raise


def check_state(state: Any, like: Any, name: str = "state") -> Any:
    """Checks a state against one of the right type, shapes and dtypes."""
    got = type(state).__name__
    if isinstance(like, tuple):
        fields: tuple[str, ...] = like._fields  # pyright: ignore
        expected = f"{type(like).__name__}({', '.join(fields)})"
        check(type(state) is type(like), name, expected, got)
        parts = zip(state, like, fields, strict=True)
        return type(like)(*(check_state(a, b, f"{name}.{f}") for a, b, f in parts))
    ok = state is not None and not isinstance(state, (tuple, list, dict, str))
    check(ok, name, "an array", got)
    array = of_values(state, name)
    check_array(array, name, like.shape, like.dtype)
    return array


def check_lengths(
    lengths: Any,
    batch: tuple[int, ...],
    T: int,
    *,
    name: str = "lengths",
    least: int = 0,
) -> Array:
    """Checks lengths, and their values where these are known, and returns them."""
    array = of_values(lengths, name)
    check(array.shape == batch, name, f"shape {batch}", array.shape)
    ok = jnp.issubdtype(array.dtype, jnp.integer) or array.size == 0
    check(ok, name, "an integer dtype", array.dtype)
    for n in extremes(lengths):
        check(least <= n <= T, name, f"values from {least} to {T}", n)
    if array.dtype.itemsize >= 4:  # clipped before it is narrowed
        array = jnp.clip(array, 0, T)
    return array.astype(jnp.int32)


def as_int32(array: Array) -> Array:
    """What is beyond is not another number, but the least or the greatest."""
    beyond = jnp.iinfo(array.dtype).max > jnp.iinfo(jnp.int32).max
    if beyond:
        low, high = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max
        array = jnp.clip(array, max(low, jnp.iinfo(array.dtype).min), high)
    return array.astype(jnp.int32)


def check_tokens(
    tokens: Any, name: str, V: int | None = None, inside: Array | None = None
) -> Array:
    """Checks tokens, those from 0 to V - 1 if that is given, and returns them.

    Where `inside`, booleans of their shape, is False they may be anything: 0 then.
    Others that are out of range, where only a run under `jit` knows it, have to become
    NaN in what is made of them.
    """
    array = of_values(tokens, name)
    ok = jnp.issubdtype(array.dtype, jnp.integer)
    check(ok, name, "an integer dtype", array.dtype)
    if inside is not None:
        check(array.shape == inside.shape, name, f"shape {inside.shape}", array.shape)
        tokens = _those(inside, tokens if hasattr(tokens, "min") else array)
        array = jnp.where(inside, array, 0)
    known = extremes(tokens) if V is not None else []
    if V is not None and known:
        low, high = min(known), max(known)
        expected = f"tokens from 0 to {V - 1}"
        check(0 <= low and high < V, name, expected, f"{low} to {high}")
    return as_int32(array)


def extremes(values: Any) -> list[int]:
    """Among them the least and the most of the values, as far as these are known.

    Of what came: an array made of it may have wrapped to 32 bits.
    """
    found = []
    for part in jax.tree.leaves(values):
        if isinstance(part, jax.core.Tracer) or getattr(part, "size", 1) == 0:
            continue
        with jax.ensure_compile_time_eval():
            is_array = hasattr(part, "min")
            found += map(int, (part.min(), part.max()) if is_array else (part,))
    return found


def _those(inside: Array, values: Any) -> Any:
    """The values inside, or none if it is not known which these are."""
    if isinstance(inside, jax.core.Tracer) or isinstance(values, jax.core.Tracer):
        return []
    with jax.ensure_compile_time_eval():
        if isinstance(values, jax.Array):
            return jnp.where(inside, values, 0)
        return values[jax.device_get(inside)]


def check_mask(mask: Any, shape: tuple[int, ...], name: str) -> Array:
    mask = of_values(mask, name)
    check_array(mask, name, shape, jnp.bool_)
    return mask


def check_remat(remat: Any) -> int:
    ok = is_whole(remat) and remat >= 1
    check_value(ok, "remat", "None or a number of steps", remat)
    return int(remat)
