"""Weights and inputs as a caller gives them, checked and in leaves."""

from typing import Any, NamedTuple

import jax
from jax import Array

from jaxseq._base.check import as_array, as_jax, check, check_dtype
from jaxseq._base.dtypes import is_float


class CellParams(NamedTuple):
    """Weights of a cell of one's own.

    Fields:
        w_x: of the input map, `(D, Z)`, a tree of such with None for inputs that are
            passed on as they are, or None.
        w_h: of the recurrent part, `(I, O)`, blocks `(N, I / N, O / N)`, a tree of
            such, or None.
        b: bias of the input map, `(Z,)`, a tree of such, or None.
        extra: what else the update is given, any tree of arrays.
    """

    w_x: Any
    w_h: Any
    b: Any = None
    extra: Any = None


def as_arrays(params: CellParams) -> CellParams:
    """Weights as arrays, each of a rank that it may have."""

    def one(path: Any, a: Any) -> Array:
        name = f"params{jax.tree_util.keystr(path)}"
        ok = hasattr(a, "shape") or isinstance(a, (int, float))
        check(ok, name, "an array", type(a).__name__)
        a = as_jax(a)
        if path[0].name == "w_x":
            check(a.ndim == 2, name, "shape (D, Z)", a.shape)
        if path[0].name == "w_h":
            expected = "shape (I, O) or (N, I / N, O / N)"
            check(a.ndim in (2, 3), name, expected, a.shape)
        if path[0].name != "extra":
            check(is_float(a), name, "a float dtype", a.dtype)
        return a

    return jax.tree_util.tree_map_with_path(one, params)


class Maps(NamedTuple):
    x: tuple[Array, ...]
    w: tuple[Array | None, ...]
    b: tuple[Array | None, ...]
    tree: Any  # of the input maps


def input_maps(params: CellParams, x: Any) -> Maps:
    """The input, matrix and bias of each input map.

    The tree of `x` may be the upper part of that of `w_x`: then several maps read one
    input.
    """
    is_none = lambda a: a is None
    if hasattr(params.w_x, "shape"):
        x = as_array(x, "x")
    named, tree = jax.tree_util.tree_flatten_with_path(x, is_leaf=is_none)
    check(bool(named), "x", "at least one array", x)
    arrays = [as_array(a, f"x{jax.tree_util.keystr(path)}") for path, a in named]
    if params.w_x is None:
        check(params.b is None, "params.b", "None without w_x", "an array")
        none = (None,) * len(arrays)
        return Maps(tuple(arrays), none, none, tree)
    try:
        parts = tree.flatten_up_to(params.w_x)
    except (ValueError, TypeError) as error:
        like = jax.tree.structure(params.w_x, is_leaf=is_none)
        message = f"x: expected a tree like params.w_x, {like}, got {tree}"
        raise ValueError(message) from error
    of_each = [jax.tree.flatten(part, is_leaf=is_none) for part in parts]
    w = tuple(a for own, _ in of_each for a in own)
    spread_x = [a for a, (own, _) in zip(arrays, of_each, strict=True) for _ in own]
    whole = tree.unflatten([t.unflatten([0] * t.num_leaves) for _, t in of_each])
    tree = jax.tree.structure(whole)
    if params.b is None:
        b: tuple[Any, ...] = (None,) * len(w)
    elif hasattr(params.b, "shape"):
        one = sum(a is not None for a in w) == 1
        check(
            one,
            "params.b",
            "a tree like w_x, for there are several matrices",
            "an array",
        )
        b = tuple(None if a is None else params.b for a in w)
    else:
        try:
            b = tuple(tree.flatten_up_to(params.b))
        except (ValueError, TypeError) as error:
            got = jax.tree.structure(params.b, is_leaf=is_none)
            message = f"params.b: expected a tree like params.w_x, {tree}, got {got}"
            raise ValueError(message) from error
    return Maps(tuple(spread_x), w, b, tree)


def dtype_of(params: CellParams, x: tuple[Array, ...]) -> Any:
    """The dtype of the weights, or of the inputs if there are none."""
    arrays = [a for a in jax.tree.leaves(params) if is_float(a)]
    dtype = next((a.dtype for a in [*arrays, *x] if is_float(a)), None)
    check(dtype is not None, "params", "weights of a float dtype", "none")
    check_dtype(dtype, "params")
    for path, a in jax.tree_util.tree_leaves_with_path(params):
        if is_float(a):
            name = f"params{jax.tree_util.keystr(path)}"
            check(a.dtype == dtype, name, f"dtype {dtype}", a.dtype)
    return dtype


def lead_of(maps: Maps, time: tuple[str, ...], dtype: Any) -> tuple[int, ...]:
    """The axes of the inputs before their features, the same for all of them."""
    lead = maps.x[0].shape[:-1]
    for x, w, b in zip(maps.x, maps.w, maps.b, strict=True):
        axes = ("...", *time, "D" if w is None else w.shape[0])
        expected = "shape (" + ", ".join(map(str, axes)) + ")"
        ok = x.ndim >= len(axes) - 1 and (w is None or x.shape[-1] == w.shape[0])
        check(ok, "x", expected, x.shape)
        check(x.shape[:-1] == lead, "x", f"inputs of shapes {lead} and D", x.shape)
        if w is not None or is_float(x):
            check(x.dtype == dtype, "x", f"dtype {dtype}, that of params", x.dtype)
        if b is not None:
            got = getattr(b, "shape", type(b).__name__)
            expected = "None" if w is None else f"shape {w.shape[1:]}"
            check(w is not None and got == w.shape[1:], "params.b", expected, got)
    return lead
