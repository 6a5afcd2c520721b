"""Argument checks: each names the argument, what was expected and what came."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

FLOATS = ("float64", "float32", "bfloat16", "float16")


def check(ok: bool, name: str, expected: object, got: object) -> None:
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def check_dtype(dtype: Any, name: str) -> None:
    check(jnp.dtype(dtype).name in FLOATS, name, f"a dtype among {FLOATS}", dtype)


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check(size >= 1, name, "a size of at least 1", size)


def check_array(a: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    check(a.shape == shape, name, f"shape {shape}", a.shape)
    check(a.dtype == dtype, name, f"dtype {jnp.dtype(dtype)}", a.dtype)


def check_params(params: Any, kind: type, gates: int) -> Any:
    """Checks the weights of a cell with `gates` gates and returns them."""
    check(isinstance(params, kind), "params", kind.__name__, type(params).__name__)
    params = jax.tree.map(jnp.asarray, params)
    ranks = params.w_x.ndim, params.w_h.ndim
    check(ranks == (2, 2), "params", "w_x and w_h of rank 2", f"ranks {ranks}")
    D, H, dtype = params.w_x.shape[0], params.w_h.shape[0], params.w_x.dtype
    check_dtype(dtype, "params.w_x")
    Z = gates * H
    shapes = {"w_x": (D, Z), "w_h": (H, Z), "b": (Z,), "b_hn": (H,)}
    for name, w in params._asdict().items():
        if w is not None:
            check_array(w, f"params.{name}", shapes[name], dtype)
    return params


def check_x(x: Any, shape: tuple[Any, ...], dtype: Any) -> Array:
    """Checks an input of `shape`, `(..., T, D)` or `(..., D)`, and returns it."""
    x = jnp.asarray(x)
    expected = "shape (" + ", ".join(map(str, shape)) + ")"
    ok = x.ndim >= len(shape) - 1 and x.shape[-1] == shape[-1]
    check(ok, "x", expected, x.shape)
    check(x.dtype == dtype, "x", f"dtype {dtype}, that of params", x.dtype)
    return x


def check_state(state: Any, zeros: Any) -> Any:
    """Checks a state against `zeros`, one of the right type, shape and dtype."""
    got = type(state).__name__
    if isinstance(zeros, tuple):
        expected = f"{type(zeros).__name__}({', '.join(zeros._fields)})"  # pyright: ignore
        check(type(state) is type(zeros), "state", expected, got)
    else:
        check(not isinstance(state, (tuple, list, dict)), "state", "an array", got)
    state = jax.tree.map(jnp.asarray, state)
    leaves = jax.tree.leaves_with_path(state)
    for (path, s), z in zip(leaves, jax.tree.leaves(zeros), strict=True):
        check_array(s, "state" + jax.tree_util.keystr(path), z.shape, z.dtype)
    return state


def check_lengths(lengths: Any, batch: tuple[int, ...], T: int) -> Array:
    traced = isinstance(lengths, jax.core.Tracer)
    with jax.ensure_compile_time_eval():
        lengths = jnp.asarray(lengths)
        check(lengths.shape == batch, "lengths", f"shape {batch}", lengths.shape)
        ok = jnp.issubdtype(lengths.dtype, jnp.integer)
        check(ok, "lengths", "an integer dtype", lengths.dtype)
        if lengths.size and not traced:
            for extreme in (int(lengths.min()), int(lengths.max())):
                expected = f"values from 0 to {T}"
                check(0 <= extreme <= T, "lengths", expected, extreme)
    return lengths


def check_resets(resets: Any, shape: tuple[int, ...]) -> Array:
    resets = jnp.asarray(resets)
    check_array(resets, "resets", shape, jnp.bool_)
    return resets
