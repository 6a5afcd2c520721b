"""The backward pass of a cell over time, as a run of its way back by the kernels."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import Masks, select
from jaxseq._engine.types import (
    Before,
    Devices,
    Gradients,
    Saved,
    Spec,
    Weights,
    batch_of,
    to_batch_first,
)
from jaxseq._kernels.cpu import call
from jaxseq._kernels.cpu.blocks import blocks_in, blocks_of, in_blocks
from jaxseq._kernels.cpu.counts import values_of
from jaxseq._kernels.cpu.plan import CLEARED, KEPT, LOST, Arrays, numbered
from jaxseq._kernels.cpu.pull import Back, back_of
from jaxseq._kernels.cpu.rows import Batch, are_alike, rows_of


def backward(
    devices: Devices,
    spec: Spec,
    weights: Weights,
    x: Any,
    saved: Saved,
    masks: Masks,
    d_end: Any,
    d_ys: Any,
) -> Gradients:
    """As `loop_back.backward` takes and returns."""
    step = spec.step
    rows, batch = rows_of(step), batch_of(step, d_end)
    alike = are_alike(step, batch, masks)
    back = back_of(step, blocks_in(step, weights), alike)
    assert not isinstance(back, str)
    on = Batch(rows, batch)
    B, T = on.B, jax.tree.leaves((d_ys, saved, x))[0].shape[0]
    dtype = rows.dtype
    starts = spec.starts and masks.keep is not None

    maps = [a if b is None else b for a, b in zip(x, saved.z_x, strict=True)]
    given = {"z_x": maps, "z": saved.z, "state": saved.state, "y": d_ys}
    like = {"z_x": step.z_x, "z": step.z, "state": step.state, "y": step.ys}
    read = _Read(on, T, spec.turned, given, like)

    args: list[Array] = []
    place: dict[tuple[str, int], int] = {}  # of each input in `args`
    for kind, i in back.inputs:
        place[kind, i] = len(args)
        args.append(read.of_steps(kind, i))
        if read.is_before(kind, i):
            args.append(on.flat(given[kind][i].first, like[kind][i]))
    args += [in_blocks(weights.w_h[k]) for k in back.called]
    args += [values_of(i, weights.extra, dtype) for i in back.extra]
    out: list[call.Result] = []
    moving = [(a, d) for a, d in zip(step.state, d_end, strict=True) if d is not None]
    for a, d in moving:
        args.append(on.flat(d, a, once=True))
        own = call.Result(args[-1].shape, on.whole(a, total=True), d.dtype, 0)
        out += [own, *[own._replace(dtype=dtype)] * starts]
    for i in back.sums:
        own = partial(on.total, like=step.extra[i])
        args.append(jnp.zeros((B, rows.width_of_weight(step.extra[i])), dtype))
        out.append(call.Result(args[-1].shape, own, dtype, 0))
    for i in back.given_rows:
        a = weights.extra[i]
        args.append(jnp.broadcast_to(a, (*batch, *a.shape)).reshape(B, -1))
        out.append(call.Result(args[-1].shape, lambda a: a, a.dtype, 0))
    over: list[tuple[int, int]] = []
    for kind, i in back.outputs:
        own = like[kind][i]
        # of what was saved a step has been read when its gradient is written
        is_saved = kind == "z" or saved.z_x[i] is not None
        if is_saved and (kind, i) in back.inputs:
            over.append((place[kind, i], len(out)))
        shape, own_dtype = (T, B, rows.width(own)), own.dtype
        out.append(call.Result(shape, on.whole(own, (T,), total=True), own_dtype, 1))
    keep = _kept(spec, masks)
    now = Masks(masks.valid, keep)
    args += [m.reshape(T, B) for m in now if m is not None]

    how = _arrays(back, weights, read, len(moving), LOST if starts else CLEARED)
    numbers = numbered(back.program, how, False, not spec.reverse, call.ROWS)
    found = iter(call.run(devices, numbers, now, args, out, dtype, over))
    return _gradients(spec, weights, masks, back, d_end, found)


class _Read(NamedTuple):
    """What each step back is given, by a kind and a number."""

    on: Batch
    T: int
    turned: bool
    given: dict[str, Any]
    like: dict[str, Any]  # the same of one step

    def is_before(self, kind: str, i: int) -> bool:
        return isinstance(self.given[kind][i], Before)

    def is_turned(self, kind: str, i: int) -> bool:
        """Whether its batch comes before time."""
        return self.turned and (kind == "y" or self.is_before(kind, i))

    def of_steps(self, kind: str, i: int) -> Array:
        a, like, last = self.given[kind][i], self.like[kind][i], self.is_turned(kind, i)
        a = a.y if isinstance(a, Before) else a
        if a is None:  # what is not read has any value
            B, F = self.on.B, self.on.rows.width(like)
            return jnp.zeros((B, self.T, F) if last else (self.T, B, F), like.dtype)
        if last:  # cancels the transposition of y, so XLA copies nothing
            a = to_batch_first(a)
        return self.on.flat(a, like, (self.T,), last, once=kind == "y")


def _arrays(
    back: Back, weights: Weights, read: _Read, moving: int, reset: int
) -> Arrays:
    """What the plan says of each array; `moving` parts of the state have gradients."""
    turned, before = read.is_turned, read.is_before
    kept = len(back.sums) + len(back.given_rows)
    return Arrays(
        [
            (("input", i), turned(*name), before(*name), False, False, False)
            for i, name in zip(_numbers_of(back, "input"), back.inputs, strict=True)
        ],
        [
            (("product", k), False, blocks_of(weights.w_h[k]).turned, True)
            for k in back.called
        ],
        [("extra", i) for i in back.extra],
        [
            *((("state", i), reset, False) for i in range(moving)),
            *((("state", moving + i), KEPT, False) for i in range(kept)),
        ],
        [("output", j) for j in range(len(back.outputs))],
    )


def _gradients(
    spec: Spec, weights: Weights, masks: Masks, back: Back, d_end: Any, found: Any
) -> Gradients:
    """From the results of the call, in their order."""
    step = spec.step
    last = -1 if spec.reverse else 0  # the step that comes last on the way back
    first = None if masks.keep is None else masks.keep[last]
    starts = spec.starts and masks.keep is not None
    moving = sum(d is not None for d in d_end)
    states = [[next(found) for _ in range(1 + starts)] for _ in range(moving)]
    d_state = iter(select(first, (d,))[0] for d, *_ in states)
    d_starts = None
    if starts and first is not None:
        d_starts = iter(
            (lost + select(~first, (d,))[0].astype(lost.dtype)).astype(d.dtype)
            for d, lost in states
        )
    d_extra: list[Any] = [None] * len(step.extra)
    for i in back.sums:
        d_extra[i] = next(found).astype(weights.extra[i].dtype)
    for _ in back.given_rows:
        next(found)
    of = dict(zip(back.outputs, found, strict=True))
    d_z = tuple(of["z", i] for i in range(len(step.z)))
    d_z_x = tuple(
        of.get(("z_x", i)) if k is None else d_z[step.called.index(k)]
        for i, k in enumerate(step.sums)
    )

    def by_part(found: Any) -> Any:
        return tuple(None if d is None else next(found) for d in d_end)

    d_start = None if d_starts is None else by_part(d_starts)
    return Gradients(d_z_x, d_z, tuple(d_extra), by_part(d_state), d_start)


def _numbers_of(back: Back, kind: str) -> list[int]:
    return sorted(i for k, i in back.program.columns if k == kind)


def _kept(spec: Spec, masks: Masks) -> Array | None:
    """Where the gradient of the state goes on to the step that comes next.

    A step resets its state before it runs forward, so after it on the way back.
    """
    valid, keep = masks
    if keep is None:
        return None
    keep = keep if valid is None else keep | ~valid
    all_kept = jnp.ones_like(keep[:1])
    if spec.reverse:
        return jnp.concatenate([all_kept, keep[:-1]])
    return jnp.concatenate([keep[1:], all_kept])
