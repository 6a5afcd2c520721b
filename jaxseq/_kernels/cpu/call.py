"""A cell over time on a CPU, as a custom call of the native kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import Masks
from jaxseq._engine.products import project
from jaxseq._engine.types import (
    Devices,
    Inputs,
    Saved,
    Spec,
    Weights,
    batch_of,
    is_saved,
    out_dtype,
    to_batch_first,
    to_time_first,
)
from jaxseq._kernels.cpu import spread
from jaxseq._kernels.cpu.blocks import blocks_in, in_blocks
from jaxseq._kernels.cpu.counts import counts_of, values_of
from jaxseq._kernels.cpu.integers import from_lanes, in_lanes
from jaxseq._kernels.cpu.plan import Flags, Numbers, numbers_of
from jaxseq._kernels.cpu.program import program_of
from jaxseq._kernels.cpu.rows import Batch, are_alike, rows_of

ROWS = 32  # of a block, at most
# 0 for the portable kernel, 1 for that for AVX2, 2 for that for AVX-512, without its
# products of bfloat16; for tests
VECTORS = 3


def forward(
    devices: Devices, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array, ...], Saved | None]:
    """The state, the outputs, and what the backward pass needs if `spec.save`."""
    step = spec.step
    x, state, start, masks = inputs
    alike = are_alike(step, batch_of(step, state), masks)
    program = program_of(step, blocks_in(step, weights), alike)
    assert not isinstance(program, str)
    keep_x, keep_state = [False] * len(x), [False] * len(state)
    if spec.save:
        keep_x, keep_state = is_saved(spec, weights)
    weights, x = _in_blocks_projected(step, weights, x)
    start = start if masks.keep is not None else None
    flags = Flags(start is not None, keep_x, keep_state, ROWS)
    rows, batch = rows_of(step), batch_of(step, state)
    on, first = Batch(rows, batch), spec.batch_first or spec.turned
    if spec.turned:  # cancels the transposition of x, so XLA copies nothing
        x = tuple(map(to_batch_first, x))
    B, T = on.B, x[0].shape[len(batch) if first else 0]
    # in the order in which src/read_plan.h takes them
    args: list[Array] = []
    out: list[Result] = []

    def result(a: Any, time: Any = (), last: bool = False, dtype: Any = None) -> Result:
        there = (B, *time) if last else (*time, B)
        axis = 0 if last else len(time)
        shape, whole = (*there, rows.width(a)), on.whole(a, time, last)
        return Result(shape, whole, dtype or a.dtype, axis)

    saved = lambda a: result(a, (T,))
    parts = zip(x, weights.w_x, weights.b, strict=True)
    for i, (a, w, b) in enumerate(parts):
        like = jax.ShapeDtypeStruct(a.shape[len(batch) + 1 :], a.dtype)
        args.append(on.flat(narrow(spec, a), like, (T,), first))
        args += [p for p in (narrow(spec, w), b) if p is not None]
        out += [saved(step.z_x[i])] * keep_x[i]
    for k, z in zip(step.called, step.z, strict=True):
        args.append(in_blocks(narrow(spec, weights.w_h[k])))
        out += [saved(z)] * spec.save
    own = [rows.is_given_rows(a) for a in step.extra]
    extra = list(zip(weights.extra, own, strict=True))
    args += [a.ravel() for a, yes in extra if not yes]
    counts = counts_of(program.columns)
    args += [values_of(i, weights.extra, rows.dtype) for _, i in counts]
    for i, a in enumerate(state):
        part = step.state[i]
        args.append(on.flat(a, part))
        args += [] if start is None else [on.flat(start[i], part)]
        out += [result(part), *[saved(part)] * keep_state[i]]
    for a, yes in extra:
        if yes:
            a = jnp.broadcast_to(a, (*batch, *a.shape))
            args.append(a.reshape(B, -1))
            out.append(Result(args[-1].shape, lambda a: a, a.dtype, 0))
    out += [result(y, (T,), first, out_dtype(spec, y)) for y in step.ys]
    args += [m.reshape(T, B) for m in masks if m is not None]
    numbers = numbers_of(spec, weights, program, flags)
    found = iter(run(devices, numbers, masks, args, out, rows.dtype))

    def some(flags: Any) -> tuple[Any, ...]:
        return tuple(next(found) if yes else None for yes in flags)

    z_x = some(keep_x)
    z = some([spec.save] * len(step.called))
    states = [(next(found), *some([yes])) for yes in keep_state]
    end, old = zip(*states, strict=True)
    ys = tuple(found)[sum(own) :]
    ys = tuple(map(to_time_first, ys)) if spec.turned else ys
    return end, ys, Saved(z_x, z, old) if spec.save else None


def _in_blocks_projected(step: Any, weights: Weights, x: Any) -> Any:
    """Weights and inputs without input maps in blocks: these are inputs then."""
    whole = [w is None or w.ndim == 2 for w in weights.w_x]
    own = tuple(None if yes else w for yes, w in zip(whole, weights.w_x, strict=True))
    b = tuple(None if yes else b for yes, b in zip(whole, weights.b, strict=True))
    x = project(step, weights._replace(w_x=own, b=b), x)
    some = lambda parts: tuple(
        a if yes else None for yes, a in zip(whole, parts, strict=True)
    )
    return weights._replace(w_x=some(weights.w_x), b=some(weights.b)), x


def narrow(spec: Spec, a: Any) -> Any:
    """An array as it was before it was widened to the dtype of the sums."""
    if spec.dtype is None or a is None or a.dtype != jnp.float32:
        return a
    return a.astype(spec.dtype)


class Result(NamedTuple):
    """A result of the kernel."""

    there: tuple[int, ...]  # its shape in the kernel
    whole: Callable[[Array], Array]  # from that to what it is here
    dtype: Any
    rows: int  # its axis of rows in the kernel


def run(
    devices: Devices,
    numbers: Numbers,
    masks: Masks,
    args: Any,
    out: list[Result],
    dtype: Any,
    over: Any = (),
) -> list[Array]:
    """`over` are pairs of an argument and of the result that may take its place."""
    which = (masks.valid is not None) + 2 * (masks.keep is not None)
    program = (
        jnp.array([which, VECTORS, *numbers.plan], jnp.int32),
        jnp.array(numbers.code, jnp.int32),
        jnp.array(numbers.values, dtype),
    )
    of_masks = len(args) - which.bit_count()
    held = lambda kind: kind if jnp.issubdtype(kind, jnp.floating) else dtype
    args = [in_lanes(a, dtype) if i < of_masks else a for i, a in enumerate(args)]
    about = spread.Call(
        devices,
        [None] * len(program) + numbers.axes + [1] * which.bit_count(),
        [(r.rows, jax.ShapeDtypeStruct(r.there, held(r.dtype))) for r in out],
        [(len(program) + i, j) for i, j in over],
    )
    pairs = zip(spread.call(about, [*program, *args]), out, strict=True)
    return [from_lanes(r.whole(a), r.dtype) for a, r in pairs]
