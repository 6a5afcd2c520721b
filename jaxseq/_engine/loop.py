"""A cell over time as a loop over its steps; `loop_back.py` is its backward pass.

Neither is differentiated: `backward` is the transpose of the derivative of `forward`,
and `rule.py` joins the two. Arrays are time first, so that a step is one block of
memory; x and y of many rows are read and written where they lie. The input maps are
made apart, for many steps at a time.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.masks import Masks, select
from jaxseq._engine.chain import product
from jaxseq._engine.outline import chained
from jaxseq._engine.products import plus, project, round_to, times
from jaxseq._engine.slices import WHOLE, Rows, at, join, of_rows, put
from jaxseq._engine.steps import evaluate
from jaxseq._engine.types import (
    Inputs,
    Saved,
    Spec,
    Weights,
    batch_of,
    is_saved,
    out_dtype,
    room,
    to_batch_first,
    to_time_first,
)
from jaxseq._engine.work import block_of, in_halves, on_one_core


class Platform(NamedTuple):
    """How a platform wants its loop."""

    narrow: bool  # products of 16-bit factors
    outline: bool  # steps as calls that are not fused with others
    halves: bool  # two halves of the batch, where that is faster
    alone: bool = True  # whether this is the program of one device


def forward(
    spec: Spec, on: Platform, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array, ...], Saved | None]:
    """The state, the outputs, and what the backward pass needs if `spec.save`."""
    step, save = spec.step, spec.save
    keep_x, keep_state = is_saved(spec, weights) if save else ([], [])
    # with no bias a map is what it was made as
    put_x = [k and b is not None for k, b in zip(keep_x, weights.b, strict=save)]
    x, state, start, masks = inputs
    T, batch = x[0].shape[-2 if spec.batch_first else 0], batch_of(step, state)
    halves: list[Rows] = [WHOLE]
    if on.halves and not save:
        halves = in_halves(step, batch)
    size = None if save else block_of(T, batch, weights, step.z_x)
    if on.halves and not save and halves == [WHOLE] and on_one_core(step, batch):
        size = 1  # so that input maps are made beside the products
    # many rows are read and written where they are, a few are turned to time first
    in_place = spec.batch_first and size == 1
    if spec.batch_first and not in_place:
        x = tuple(map(to_time_first, x))
    if size != 1:
        x = select(masks.valid, x)
    axis = -2 if in_place else 0
    narrow = spec.dtype if on.narrow else None
    place = [None if k is None else step.called.index(k) for k in step.sums]
    # biases are added in the steps: all at once they cost a pass over the maps
    bare = weights._replace(b=(None,) * len(x))
    map_of = partial(project, step, bare, narrow=narrow, alone=on.alone)

    axes = len(batch) - isinstance(halves[0], int)  # in front of what a step takes

    def one(z_x: Any, old: Any, start: Any, given: Any, masks: Masks) -> Any:
        (b, extra), (valid, keep) = given, masks
        z_x = list(map(plus, z_x, b))
        first = select(keep, old, start)
        ask = lambda k, a: product(k, a, step.widths[k][1])
        new, ys, z, _ = evaluate(step, axes, ask, z_x, first, extra)
        new = select(valid, tuple(new), old)
        ys = tuple(select(valid, a).astype(out_dtype(spec, a)) for a in ys)
        if not save:
            return new, ys, None
        old = [a if k else None for a, k in zip(first, keep_state, strict=True)]
        z_x = [a if k else None for a, k in zip(z_x, put_x, strict=True)]
        return new, ys, (z, old, z_x)

    def ask(k: int, a: Array) -> Array:
        a = a if on.narrow else round_to(a, spec.dtype)
        return times(a, weights.w_h[k], narrow, on.alone, step.precisions[k])

    def body(t: Any, z_x: Any, carry: Any) -> Any:
        """Step `t`, whose input maps `z_x` gives."""
        states, ys, buffers = list(carry[0]), *carry[1:]
        for i, rows in enumerate(halves):
            maps = z_x(t, rows, buffers)
            first = jax.tree.map(partial(of_rows, rows=rows), start)
            now = jax.tree.map(partial(at, t=t, rows=rows), masks)
            args = maps, states[i], first, (weights.b, weights.extra), now
            states[i], now, kept_t = chained(one, args, ask, on.outline)
            ys = tuple(put(y, a, t, rows, axis) for y, a in zip(ys, now, strict=True))
            buffers = jax.tree.map(partial(put, t=t, rows=rows), buffers, kept_t)
        return states, ys, buffers

    def over(low: Any, high: Any, z_x: Any, carry: Any) -> Any:
        def turn(i: Any, carry: Any) -> Any:
            return body(high - 1 - (i - low) if spec.reverse else i, z_x, carry)

        return lax.fori_loop(low, high, turn, carry)

    states = [tuple(of_rows(a, rows) for a in state) for rows in halves]
    ys = tuple(room(T, batch, a, out_dtype(spec, a)) for a in step.ys)
    ys = tuple(map(to_batch_first, ys)) if in_place else ys
    carry = states, ys, None
    if save:
        maps = map_of(x)
        z = [room(T, batch, a) for a in step.z]
        for a, i in zip(maps, place, strict=True):
            if i is not None:  # the sum takes the place of the map
                z[i] = a
        old = [
            room(T, batch, a) if read else None
            for a, read in zip(step.state, keep_state, strict=True)
        ]

        def saved_map(t: Any, rows: Rows, buffers: Any) -> Any:
            z, _, own = buffers
            now = [a if o is None else o for a, o in zip(maps, own, strict=True)]
            now = [a if i is None else z[i] for a, i in zip(now, place, strict=True)]
            return [at(a, t, rows) for a in now]

        own = [a if k else None for a, k in zip(maps, put_x, strict=True)]
        carry = states, ys, (z, old, own)
        states, ys, (z, old, own) = over(0, T, saved_map, carry)
        own = [
            a if k and o is None else o
            for a, o, k in zip(maps, own, keep_x, strict=True)
        ]
        return join(states, halves), ys, Saved(tuple(own), tuple(z), tuple(old))

    if size is None:
        maps = map_of(x)
        states, ys, _ = over(0, T, lambda t, r, _: [at(a, t, r) for a in maps], carry)
    elif size == 1:

        def now(t: Any, rows: Rows, _: Any) -> Any:
            x_t = tuple(at(a, t, rows, axis) for a in x)
            valid = jax.tree.map(partial(at, t=t, rows=rows), masks.valid)
            return map_of(select(valid, x_t))

        states, ys, _ = over(0, T, now, carry)
    else:
        blocks = -(-T // size)

        def block(i: Any, carry: Any) -> Any:
            low = (blocks - 1 - i if spec.reverse else i) * size
            # the last one begins early enough to be whole
            first = jnp.minimum(low, T - size)
            maps = map_of([lax.dynamic_slice_in_dim(a, first, size) for a in x])
            z_x = lambda t, r, _: [at(a, t - first, r) for a in maps]
            return over(low, jnp.minimum(low + size, T), z_x, carry)

        states, ys, _ = lax.fori_loop(0, blocks, block, carry)
    if spec.batch_first and not in_place:
        ys = tuple(map(to_batch_first, ys))
    return join(states, halves), ys, None
