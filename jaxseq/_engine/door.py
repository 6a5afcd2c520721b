"""From the arguments of a public function to what the engine runs.

Public weights, states and inputs are trees; the engine takes their leaves.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import (
    check,
    check_flag,
    check_lengths,
    check_mask,
    check_remat,
    check_state,
    check_value,
    of_values,
)
from jaxseq._base.dtypes import is_float, state_dtype
from jaxseq._base.mesh import varying
from jaxseq._engine.backends import PALLAS
from jaxseq._engine.kept import Kept, prepared
from jaxseq._engine.params import CellParams, as_arrays, dtype_of, input_maps, lead_of
from jaxseq._engine.types import Devices, Spec, Weights
from jaxseq._engine.update import Shapes, Update
from jaxseq._engine.widths import check_fit, start_of, widths_of

IMPLEMENTATIONS = (None, "scan", "loop", "pallas", "native")


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
    states: bool = False,
) -> tuple[Any, Any]:
    """Checks arguments and runs over time: `(state, y)`, `y` `(..., T, H)`.

    With `states` there are those of all steps in the place of `y`. What is known of
    the update is kept as long as `owner` lives, or the update.
    """
    axes = varying((params, x, state, start, lengths, mask, resets))
    given = _given(update, params, x, ("T",), zeros, state, start, axes, owner)
    *batch, T = given.lead
    batch = tuple(batch)
    if lengths is not None:
        _check_axes(lengths, "lengths", batch)
        lengths = check_lengths(lengths, batch, T)
    if mask is not None:
        mask = check_mask(_check_axes(mask, "mask", given.lead), given.lead, "mask")
    if resets is not None:
        resets = _check_axes(resets, "resets", given.lead)
        resets = check_mask(resets, given.lead, "resets")
    ok = implementation in IMPLEMENTATIONS
    expected = "None, 'scan', 'loop', 'native' or 'pallas'"
    check_value(ok, "implementation", expected, implementation)
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
    reverse = check_flag(reverse, "reverse")
    end, y = given.kept.over_time(
        *given.arrays,
        lengths,
        mask,
        resets,
        reverse=reverse,
        dtype=given.dtype,
        implementation=implementation,
        remat=remat,
        states=states,
    )
    unflatten = given.kept.step.tree.unflatten
    return unflatten(end), unflatten(y) if states else y


def _check_axes(a: Any, name: str, shape: tuple[int, ...]) -> Array:
    """Checks that there is one for each sequence or step of `x`."""
    a = of_values(a, name)
    expected = f"shape {shape}, as x is (..., T, D)"
    hint = "; where time comes first, use jax.vmap or swapaxes"
    check(a.shape == shape, name, expected, f"{a.shape}{hint}")
    return a


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
    params = as_arrays(params)
    maps = input_maps(params, x)
    dtype = dtype_of(params, maps.x)
    lead = lead_of(maps, time, dtype)
    batch = lead[: len(lead) - len(time)]
    wide = state_dtype(dtype)
    row = lambda F: jax.ShapeDtypeStruct((F,), wide)
    widths, decides = widths_of(zeros, state, start)
    rows = jax.tree.map(row, widths)
    if state is not None:
        like = lambda a: jax.ShapeDtypeStruct((*batch, *a.shape), a.dtype)
        state = check_state(state, jax.tree.map(like, rows))
    z_x = [
        jax.ShapeDtypeStruct(
            (a.shape[-1] if w is None else w.shape[-1],),
            wide if is_float(a) else a.dtype,
        )
        for a, w in zip(maps.x, maps.w, strict=True)
    ]
    shape = lambda a: jax.ShapeDtypeStruct(a.shape, wide if is_float(a) else a.dtype)
    extra = jax.tree.map(shape, params.extra)
    w_h = jax.tree.map(shape, params.w_h)
    shapes = Shapes(maps.tree.unflatten(z_x), rows, w_h, extra)
    try:
        kept, constants = prepared(update, shapes, axes, owner)
    except (AssertionError, TypeError, ValueError) as error:
        check_fit(update, shapes, decides, error)
        raise
    if start is not None:
        start = start_of(start, rows, batch)
    if state is None:
        state = start
        if start is None:
            state = jax.tree.map(lambda F: jnp.zeros((*batch, F), wide), widths)
    weights = Weights(
        maps.w,
        maps.b,
        tuple(jax.tree.leaves(params.w_h)),
        (*jax.tree.leaves(params.extra), *constants),
    )
    leaves = lambda tree: None if tree is None else tuple(jax.tree.leaves(tree))
    return Given(kept, (weights, maps.x, leaves(state), leaves(start)), lead, dtype)
