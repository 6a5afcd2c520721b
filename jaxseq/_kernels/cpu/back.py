"""The backward pass of a cell over time, as a run of its way back by the kernels."""

from functools import partial
from typing import Any

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
from jaxseq._kernels.cpu.blocks import blocks_of, in_blocks
from jaxseq._kernels.cpu.plan import CLEARED, KEPT, LOST, Arrays, numbered
from jaxseq._kernels.cpu.pull import back_of
from jaxseq._kernels.cpu.rows import Batch, rows_of


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
    """As `loop.backward` takes and returns."""
    step = spec.step
    back = back_of(step, call.blocks_in(step, weights))
    assert not isinstance(back, str)
    rows, batch = rows_of(step), batch_of(step, d_end)
    on = Batch(rows, batch)
    B, T = on.B, jax.tree.leaves((d_ys, saved, x))[0].shape[0]
    dtype = rows.dtype
    starts = spec.starts and masks.keep is not None
    last = -1 if spec.reverse else 0  # the step that comes last on the way back

    maps = [a if b is None else b for a, b in zip(x, saved.z_x, strict=True)]
    given = {"z_x": maps, "z": saved.z, "state": saved.state, "y": d_ys}
    like = {"z_x": step.z_x, "z": step.z, "state": step.state, "y": step.ys}

    def is_before(kind: str, i: int) -> bool:
        return isinstance(given[kind][i], Before)

    def is_turned(kind: str, i: int) -> bool:
        return spec.turned and (kind == "y" or is_before(kind, i))

    def of_steps(kind: str, i: int) -> Array:
        a, own, last = given[kind][i], like[kind][i], is_turned(kind, i)
        a = a.y if isinstance(a, Before) else a
        if a is None:  # what is not read has any value
            F = rows.width(own)
            return jnp.zeros((B, T, F) if last else (T, B, F), own.dtype)
        if last:  # cancels the transposition of y, so XLA copies nothing
            a = to_batch_first(a)
        return on.flat(a, own, (T,), last, once=kind == "y")

    args: list[Array] = []
    place: dict[tuple[str, int], int] = {}  # of each input in `args`
    for kind, i in back.inputs:
        place[kind, i] = len(args)
        args.append(of_steps(kind, i))
        if is_before(kind, i):
            args.append(on.flat(given[kind][i].first, like[kind][i]))
    args += [in_blocks(weights.w_h[k]) for k in back.called]
    args += [weights.extra[i].ravel() for i in back.extra]
    out: list[call.Result] = []
    moving = [(a, d) for a, d in zip(step.state, d_end, strict=True) if d is not None]
    for a, d in moving:
        args.append(on.flat(d, a))
        own = call.Result(args[-1].shape, on.whole(a), d.dtype, 0)
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

    n, sums = len(moving), len(back.sums)
    arrays = Arrays(
        [
            (("input", i), is_turned(*name), is_before(*name), False, False, False)
            for i, name in zip(_numbers_of(back, "input"), back.inputs, strict=True)
        ],
        [
            (("product", k), False, blocks_of(weights.w_h[k]).turned, True)
            for k in back.called
        ],
        [("extra", i) for i in back.extra],
        [
            *((("state", i), LOST if starts else CLEARED, False) for i in range(n)),
            *(
                (("state", n + i), KEPT, False)
                for i in range(sums + len(back.given_rows))
            ),
        ],
        [("output", j) for j in range(len(back.outputs))],
    )
    numbers = numbered(back.program, arrays, False, not spec.reverse, call.ROWS)
    found = iter(call.run(devices, numbers, now, args, out, dtype, over))

    first = None if masks.keep is None else masks.keep[last]
    states = [[next(found) for _ in range(1 + starts)] for _ in range(n)]
    d_state = iter(select(first, (d,))[0] for d, *_ in states)
    d_starts = None
    if starts and first is not None:
        d_starts = iter(
            (lost + select(~first, (d,))[0].astype(dtype)).astype(d.dtype)
            for d, *more in states
            for lost in more
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


def _numbers_of(back: Any, kind: str) -> list[int]:
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
