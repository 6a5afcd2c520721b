"""From the arguments of a public function to what the engine runs.

Public weights, states and inputs are trees; the engine takes their leaves.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.check import (
    as_array,
    as_jax,
    check,
    check_dtype,
    check_lengths,
    check_mask,
    check_remat,
    check_state,
)
from jaxseq._base.dtypes import is_float, state_dtype
from jaxseq._base.mesh import varying
from jaxseq._engine.backends import PALLAS
from jaxseq._engine.over_time import Kept, prepared
from jaxseq._engine.types import Devices, Spec, Weights
from jaxseq._engine.update import Shapes, Update

IMPLEMENTATIONS = (None, "scan", "loop", "pallas")


class CellParams(NamedTuple):
    """Weights of a cell of one's own."""

    w_x: Any  # (D, Z), a tree of them with None for inputs passed on, or None
    w_h: Any  # (I, O), or blocks (N, I / N, O / N); a tree of them, or None
    b: Any = None  # (Z,), or a tree of them
    extra: Any = None  # a tree of arrays that the update is given


def sequence(
    update: Update,
    params: CellParams,
    x: Any,
    state: Any = None,
    *,
    zeros: Any = None,
    start: Any = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    reverse: bool = False,
    remat: int | None = None,
    implementation: str | None = None,
    owner: Any = None,
) -> tuple[Any, Array]:
    """Checks arguments and runs over time: `(state, y)`, `y` `(..., T, H)`.

    What is known of the update is kept as long as `owner` lives, or the update.
    """
    axes = varying((params, x, state, start, lengths, mask, resets))
    given = _given(update, params, x, ("T",), zeros, state, start, axes, owner)
    *batch, T = given.lead
    batch = tuple(batch)
    if lengths is not None:
        lengths = check_lengths(lengths, batch, T)
    if mask is not None:
        mask = check_mask(mask, (*batch, T), "mask")
    if resets is not None:
        resets = check_mask(resets, (*batch, T), "resets")
    ok = implementation in IMPLEMENTATIONS
    expected = "None, 'scan', 'loop' or 'pallas'"
    check(ok, "implementation", expected, repr(implementation))
    limit = given.kept.limit
    ok = limit is None or implementation in (None, "scan")
    check(ok, "implementation", "None or 'scan' here", limit)
    if implementation == "pallas":
        weights, parts, first, _ = given.arrays
        starts = start is not None and resets is not None
        spec = Spec(given.kept.step, reverse, given.dtype, mask is not None, starts)
        devices = Devices(None, jax.sharding.get_abstract_mesh())
        limit = PALLAS.why_not(devices, spec, weights, parts, first)
        check(limit is None, "implementation", "None, 'scan' or 'loop' here", limit)
    remat = None if remat is None else check_remat(remat)
    check(isinstance(reverse, bool), "reverse", "True or False", repr(reverse))
    end, y = given.kept.over_time(
        *given.arrays,
        lengths,
        mask,
        resets,
        reverse=reverse,
        dtype=given.dtype,
        implementation=implementation,
        remat=remat,
    )
    return given.kept.step.tree.unflatten(end), y


def step(
    update: Update,
    params: CellParams,
    state: Any,
    x: Any,
    *,
    zeros: Any = None,
    start: Any = None,
    resets: Any = None,
    owner: Any = None,
) -> tuple[Any, Array]:
    """Checks arguments and does one step: `(state, y)`, `y` `(..., H)`."""
    check(state is not None, "state", "a state", None)
    axes = varying((params, x, state, start, resets))
    given = _given(update, params, x, (), zeros, state, start, axes, owner)
    if resets is not None:
        resets = check_mask(resets, given.lead, "resets")
    new, y = given.kept.one_step(*given.arrays, resets, dtype=given.dtype)
    return given.kept.step.tree.unflatten(new), y


class Given(NamedTuple):
    kept: Kept
    arrays: Any  # weights, x, state, start
    lead: tuple[int, ...]  # of x, before its features
    dtype: Any


def _given(
    update: Update,
    params: CellParams,
    x: Any,
    time: tuple[str, ...],
    zeros: Any,
    state: Any,
    start: Any,
    axes: Any,
    owner: Any,
) -> Given:
    check(callable(update), "update", "a function", type(update).__name__)
    ok = isinstance(params, CellParams)
    check(ok, "params", "CellParams", type(params).__name__)
    params = _arrays(params)
    inputs = spread(params, x)
    dtype = _dtype(params, inputs.x)
    lead = _lead(inputs, time, dtype)
    batch = lead[: len(lead) - len(time)]
    wide = state_dtype(dtype)
    row = lambda F: jax.ShapeDtypeStruct((F,), wide)
    widths = _widths(zeros, state, start)
    rows = jax.tree.map(row, widths)
    if start is not None:
        start = _start(start, rows, batch)
    if state is None:
        state = start
        if start is None:
            state = jax.tree.map(lambda F: jnp.zeros((*batch, F), wide), widths)
    else:
        like = lambda a: jax.ShapeDtypeStruct((*batch, *a.shape), a.dtype)
        state = check_state(state, jax.tree.map(like, rows))
    maps = zip(inputs.x, inputs.w, strict=True)
    z_x = [
        jax.ShapeDtypeStruct(
            (a.shape[-1] if w is None else w.shape[-1],),
            wide if is_float(a) else a.dtype,
        )
        for a, w in maps
    ]
    shape = lambda a: jax.ShapeDtypeStruct(a.shape, wide if is_float(a) else a.dtype)
    extra = jax.tree.map(shape, params.extra)
    w_h = jax.tree.map(shape, params.w_h)
    shapes = Shapes(inputs.tree.unflatten(z_x), rows, w_h, extra)
    kept, constants = prepared(update, shapes, axes, owner)
    weights = Weights(
        inputs.w,
        inputs.b,
        tuple(jax.tree.leaves(params.w_h)),
        (*jax.tree.leaves(params.extra), *constants),
    )
    leaves = lambda tree: None if tree is None else tuple(jax.tree.leaves(tree))
    return Given(kept, (weights, inputs.x, leaves(state), leaves(start)), lead, dtype)


def _arrays(params: CellParams) -> CellParams:
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


class Inputs(NamedTuple):
    x: tuple[Array, ...]
    w: tuple[Array | None, ...]
    b: tuple[Array | None, ...]
    tree: Any  # of the input maps


def spread(params: CellParams, x: Any) -> Inputs:
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
        return Inputs(tuple(arrays), none, none, tree)
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
    maps = jax.tree.structure(whole)
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
            b = tuple(maps.flatten_up_to(params.b))
        except (ValueError, TypeError) as error:
            got = jax.tree.structure(params.b, is_leaf=is_none)
            message = f"params.b: expected a tree like params.w_x, {maps}, got {got}"
            raise ValueError(message) from error
    return Inputs(tuple(spread_x), w, b, maps)


def _dtype(params: CellParams, x: tuple[Array, ...]) -> Any:
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


def _lead(inputs: Inputs, time: tuple[str, ...], dtype: Any) -> tuple[int, ...]:
    """The axes of the inputs before their features, the same for all of them."""
    lead = inputs.x[0].shape[:-1]
    for x, w, b in zip(inputs.x, inputs.w, inputs.b, strict=True):
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


def _widths(zeros: Any, state: Any, start: Any) -> Any:
    if zeros is not None:
        check_widths(zeros, "zeros")
        return zeros
    given = state if state is not None else start
    check(given is not None, "zeros", "widths, without a state or a start", None)
    name = "state" if state is not None else "start"
    check_parts(given, name)
    widths = jax.tree.map(lambda a: a.shape[-1], given)
    check_widths(widths, name)
    return widths


def check_parts(state: Any, name: str) -> None:
    """Checks that a state is an array, or a NamedTuple of them, nested too."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        for field, part in zip(state._fields, state, strict=True):  # pyright: ignore
            check_parts(part, f"{name}.{field}")
        return
    got = getattr(state, "shape", type(state).__name__)
    is_row = isinstance(got, tuple) and len(got) >= 1
    check(is_row, name, "an array (..., F), or a NamedTuple of such", got)


def _start(start: Any, rows: Any, batch: tuple[int, ...]) -> Any:
    """A start for each row, of one that may be of a single row."""
    parts = jax.tree.leaves(start)
    alone = bool(parts) and getattr(parts[0], "ndim", 0) == 1
    lead = () if alone else batch
    like = lambda a: jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype)
    start = check_state(start, jax.tree.map(like, rows), "start")
    if not alone or not batch:
        return start
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*batch, *a.shape)), start)


def check_widths(widths: Any, name: str) -> None:
    """Checks the widths of a state: one, or a NamedTuple of them, nested too."""
    if isinstance(widths, tuple) and hasattr(widths, "_fields"):
        for i, part in enumerate(widths):
            check_widths(part, f"{name}.{widths._fields[i]}")  # pyright: ignore
        first = widths[0] if widths else None
        ok = not isinstance(first, tuple) and first is not None
        check(ok, name, "a first field that is one width", type(first).__name__)
        return
    whole = hasattr(widths, "__index__") and not isinstance(widths, bool)
    expected = "a width of at least 1, or a NamedTuple of widths"
    least: Any = widths
    check(whole and least >= 1, name, expected, repr(widths))


def zeros_like_widths(widths: Any, batch: Any, dtype: Any) -> Any:
    """A state of zeros, no two parts in one buffer."""
    check_widths(widths, "widths")
    batch = tuple(batch) if hasattr(batch, "__iter__") else (batch,)
    for n in batch:
        ok = is_symbolic_dim(n) or (hasattr(n, "__index__") and n >= 0)
        check(ok, "batch", "a size of at least 0, or a tuple of such", repr(n))
    one = lambda F: jnp.zeros((*batch, F), state_dtype(dtype))
    return jax.tree.map(one, widths)
