"""The backward pass of a cell over time, as a run of its way back by the kernels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import Masks, select
from jaxseq._engine.types import (
    Devices,
    Gradients,
    Saved,
    Spec,
    Weights,
    batch_of,
)
from jaxseq._kernels.cpu import call
from jaxseq._kernels.cpu.plan import CLEARED, KEPT, LOST, Arrays, numbered
from jaxseq._kernels.cpu.pull import back_of


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
    step, back = spec.step, back_of(spec.step)
    assert not isinstance(back, str)
    batch, lead = batch_of(step, d_end), d_end[0].shape[:-1]
    B, T = math.prod(lead), jax.tree.leaves((d_ys, saved, x))[0].shape[0]
    dtype = step.state[0].dtype
    starts = spec.starts and masks.keep is not None
    last = -1 if spec.reverse else 0  # the step that comes last on the way back

    maps = [a if b is None else b for a, b in zip(x, saved.z_x, strict=True)]
    given = {"z_x": maps, "z": saved.z, "state": saved.state, "y": d_ys}
    like = {"z_x": step.z_x, "z": step.z, "state": step.state, "y": step.ys}

    def of_steps(kind: str, i: int) -> Array:
        a, F = given[kind][i], like[kind][i].shape[-1]
        # what is not read has any value
        zeros = jnp.zeros((T, B, F), dtype)
        return zeros if a is None else a.reshape(T, B, F)

    args = [of_steps(*name) for name in back.inputs]
    args += [weights.w_h[k].T for k in back.called]
    args += [weights.extra[i] for i in back.extra]
    out: list[tuple[Any, Any, Any]] = []
    for a in d_end:
        rows = B, a.shape[-1]
        args.append(a.reshape(rows))
        out += [(rows, a.shape, dtype)] * (2 if starts else 1)
    for i in back.sums:
        (E,) = weights.extra[i].shape
        args.append(jnp.zeros((B, E), dtype))
        out.append(((B, E), (*lead, E), dtype))
    over: list[tuple[int, int]] = []
    for kind, i in back.outputs:
        F = like[kind][i].shape[-1]
        # of what was saved a step has been read when its gradient is written
        is_saved = kind == "z" or saved.z_x[i] is not None
        if is_saved and (kind, i) in back.inputs:
            over.append((back.inputs.index((kind, i)), len(out)))
        out.append(((T, B, F), (T, *lead, F), dtype))
    keep = _kept(spec, masks)
    now = Masks(masks.valid, keep)
    args += [m.reshape(T, B) for m in now if m is not None]

    n = len(d_end)
    arrays = Arrays(
        [(("input", i), False, False, False) for i in _numbers_of(back, "input")],
        [(("product", k), False) for k in back.called],
        [("extra", i) for i in back.extra],
        [
            *((("state", i), LOST if starts else CLEARED, False) for i in range(n)),
            *((("state", n + i), KEPT, False) for i in range(len(back.sums))),
        ],
        [("output", j) for j in range(len(back.outputs))],
    )
    numbers = numbered(back.program, arrays, False, not spec.reverse, call.ROWS)
    found = iter(call.run(numbers, now, args, out, dtype, over))

    first = None if masks.keep is None else masks.keep[last]
    states = [[next(found) for _ in range(1 + starts)] for _ in range(n)]
    d_state = tuple(select(first, (d,))[0] for d, *_ in states)
    d_start = None
    if starts and first is not None:
        d_start = tuple(
            lost + select(~first, (d,))[0] for d, *more in states for lost in more
        )
    d_extra: list[Any] = [None] * len(step.extra)
    own = range(len(batch), len(lead))  # axes of rows in what the step takes
    for i in back.sums:
        d_extra[i] = next(found).sum(tuple(own))
    of = dict(zip(back.outputs, found, strict=True))
    d_z = tuple(of["z", i] for i in range(len(step.z)))
    d_z_x = tuple(
        of["z_x", i] if k is None else d_z[step.called.index(k)]
        for i, k in enumerate(step.sums)
    )
    return Gradients(d_z_x, d_z, tuple(d_extra), d_state, d_start)


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
