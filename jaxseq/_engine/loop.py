"""A cell over time as a loop over its steps, with the backward pass written out.

Neither function is differentiated: `backward` is the transpose of the derivative of
`forward`, and `rule.py` joins the two. Arrays are time first, so that a step is one
block of memory; x and y of many rows are read and written where they lie. The input
maps are made apart, for many steps at a time; the gradients of the matrices are
products over all steps, after the loop.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.export import is_symbolic_dim

from jaxseq._base.dtypes import is_float
from jaxseq._base.masks import Masks, select
from jaxseq._engine.chain import product, run, trace
from jaxseq._engine.products import project, round_to, times, transposed
from jaxseq._engine.steps import evaluate, product_back, pull, reads
from jaxseq._engine.types import (
    Gradients,
    Inputs,
    Saved,
    Spec,
    Weights,
    kept,
    like_rows,
    to_batch_first,
    to_time_first,
)
from jaxseq._engine.update import Step

# rows of x that are projected at a time, at least: fewer make a slow product
PROJECTED_ROWS = 64
# rows of a step from which on its own product is as fast, and its result still in cache
MANY_ROWS = 128

WHOLE = slice(None)


class Platform(NamedTuple):
    """How a platform wants its loop."""

    narrow: bool  # products of 16-bit factors
    outline: bool  # steps as calls that are not fused with others
    halves: bool  # two halves of the batch, where that is faster
    alone: bool = True  # whether this is the program of one device


def forward(
    spec: Spec, on: Platform, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], Array, Saved | None]:
    """The state, `y`, and what the backward pass needs if `spec.save`."""
    step, save = spec.step, spec.save
    keep_x, keep_state = kept(spec, weights) if save else ([], [])
    x, state, start, masks = inputs
    T, H = x[0].shape[-2 if spec.batch_first else 0], state[0].shape[-1]
    size = None if save else block_of(T, state[0], weights)
    # many rows are read and written where they are, a few are turned to time first
    in_place = spec.batch_first and size == 1
    if spec.batch_first and not in_place:
        x = tuple(map(to_time_first, x))
    if size != 1:
        x = select(masks.valid, x)
    axis = -2 if in_place else 0
    narrow = spec.dtype if on.narrow else None
    halves = in_halves(step, state[0]) if on.halves and not save else [WHOLE]
    summed = save and step.sum_of is not None
    # biases are added in the steps: all at once they cost a pass over the maps
    bare = weights._replace(b=(None,) * len(x))
    map_of = partial(project, bare, narrow=narrow, alone=on.alone)

    def one(z_x: Any, old: Any, start: Any, given: Any, masks: Masks) -> Any:
        (b, extra), (valid, keep) = given, masks
        z_x = [a if b is None else a + b for a, b in zip(z_x, b, strict=True)]
        first = select(keep, old, start)
        ask = lambda k, a: product(k, a, step.widths[k][1])
        new, z, _ = evaluate(step, old[0].ndim - 1, ask, z_x, first, extra)
        new = select(valid, tuple(new), old)
        y = select(valid, new[0]).astype(spec.dtype)
        if not save:
            return new, y, None
        old = [a if k else None for a, k in zip(first, keep_state, strict=True)]
        z_x = [a if k else None for a, k in zip(z_x, keep_x, strict=True)]
        return new, y, (z, old, z_x)

    def ask(k: int, a: Array) -> Array:
        a = a if on.narrow else round_to(a, spec.dtype)
        return times(a, weights.w_h[k], narrow, on.alone)

    def body(t: Any, z_x: Any, carry: Any) -> Any:
        """Step `t`, whose input maps `z_x` gives."""
        states, y, buffers = list(carry[0]), *carry[1:]
        for i, rows in enumerate(halves):
            maps = z_x(t, rows, buffers)
            first = jax.tree.map(partial(of_rows, rows=rows), start)
            now = jax.tree.map(partial(at, t=t, rows=rows), masks)
            args = maps, states[i], first, (weights.b, weights.extra), now
            states[i], y_t, kept_t = chained(one, args, ask, on.outline)
            y = put(y, y_t, t, rows, axis)
            buffers = jax.tree.map(partial(put, t=t, rows=rows), buffers, kept_t)
        return states, y, buffers

    def over(low: Any, high: Any, z_x: Any, carry: Any) -> Any:
        def turn(i: Any, carry: Any) -> Any:
            return body(high - 1 - (i - low) if spec.reverse else i, z_x, carry)

        return lax.fori_loop(low, high, turn, carry)

    states = [tuple(of_rows(a, rows) for a in state) for rows in halves]
    y = like_rows(state[0], T, H, spec.dtype)
    y = to_batch_first(y) if in_place else y
    carry = states, y, None
    if save:
        maps = map_of(x)
        buffer = partial(like_rows, state[0], T)
        z = [buffer(step.widths[k][1], state[0].dtype) for k in step.called]
        if summed:
            z[step.called.index(step.sum_of)] = maps[0]
        old = [
            buffer(a.shape[-1], a.dtype) if read else None
            for a, read in zip(state, keep_state, strict=True)
        ]

        def saved_map(t: Any, rows: slice, buffers: Any) -> Any:
            z, _, own = buffers
            now = [a if o is None else o for a, o in zip(maps, own, strict=True)]
            if summed:
                now[0] = z[step.called.index(step.sum_of)]
            return [at(a, t, rows) for a in now]

        own = [a if k else None for a, k in zip(maps, keep_x, strict=True)]
        carry = states, y, (z, old, own)
        states, y, (z, old, own) = over(0, T, saved_map, carry)
        return join(states), y, Saved(tuple(own), tuple(z), tuple(old))

    if size is None:
        maps = map_of(x)
        states, y, _ = over(0, T, lambda t, r, _: [at(a, t, r) for a in maps], carry)
    elif size == 1:

        def now(t: Any, rows: slice, _: Any) -> Any:
            x_t = tuple(at(a, t, rows, axis) for a in x)
            valid = jax.tree.map(partial(at, t=t, rows=rows), masks.valid)
            return map_of(select(valid, x_t))

        states, y, _ = over(0, T, now, carry)
    else:
        blocks = -(-T // size)

        def block(i: Any, carry: Any) -> Any:
            low = (blocks - 1 - i if spec.reverse else i) * size
            # the last one begins early enough to be whole
            first = jnp.minimum(low, T - size)
            maps = map_of([lax.dynamic_slice_in_dim(a, first, size) for a in x])
            z_x = lambda t, r, _: [at(a, t - first, r) for a in maps]
            return over(low, jnp.minimum(low + size, T), z_x, carry)

        states, y, _ = lax.fori_loop(0, blocks, block, carry)
    if spec.batch_first and not in_place:
        y = to_batch_first(y)
    return join(states), y, None


def backward(
    spec: Spec,
    on: Platform,
    weights: Weights,
    x: Any,
    saved: Saved,
    masks: Masks,
    d_end: Any,
    d_y: Array,
) -> Gradients:
    """From the gradients of the state and `y` those of all but the matrices.

    `x` are the inputs that are their own input maps, None for others. The gradients
    of products take the place of the products. Gradients of weights in `extra` that
    are part of those of a product are left out.
    """
    step, needs = spec.step, reads(spec.step)
    T, state = d_y.shape[0], tuple(d_end)
    narrow = spec.dtype if on.narrow else None
    w_h = [transposed(w) for w in weights.w_h]
    summed = [step.sum_of is not None and i == 0 for i in range(len(x))]
    # of the others the gradient is a part of that of a product
    summed_here = [
        is_float(a) and part is None
        for a, part in zip(step.extra, needs.slices, strict=True)
    ]

    def one(now: Any, extra: Any, d_state: Any, masks: Masks) -> Any:
        (z_x, z, old, d_y), (valid, keep) = now, masks
        rows = d_state[0].shape[:-1]

        def some(a: Any, like: Any) -> Array:  # what is not read has any value
            return jnp.zeros((*rows, *like.shape), like.dtype) if a is None else a

        old = list(map(some, old, step.state))
        z_x = [
            None if s else some(a, like)
            for a, like, s in zip(z_x, step.z_x, summed, strict=True)
        ]
        d_h, *others = d_state
        d_new = select(valid, (d_h + d_y.astype(d_h.dtype), *others))
        wide = [
            jnp.broadcast_to(a, (*rows, *a.shape)) if a.ndim < 2 else a for a in extra
        ]
        back = product_back(step)
        d = pull(step, len(rows), back, z_x, z, old, wide, d_new, valid)
        # a step that is not valid hands its gradient on
        d_old = select(valid, select(keep, d.state), tuple(d_state))
        fresh = None
        if spec.starts and keep is not None:
            fresh = select(~keep, d.state)
        more = [a if own else None for a, own in zip(d.extra, summed_here, strict=True)]
        return d_old, d.z, d.z_x, more, fresh

    def ask(k: int, d: Array) -> Array:
        return times(d, w_h[k], narrow, on.alone)

    def body(n: Any, carry: Any) -> Any:
        t = n if spec.reverse else T - 1 - n
        d_z, d_z_x, d_state, *sums = carry
        # the gradients so far stand where the maps of the steps before do
        z_x = [
            a if own is None else d
            for own, a, d in zip(saved.z_x, x, d_z_x, strict=True)
        ]
        now = jax.tree.map(partial(at, t=t), ((z_x, d_z, saved.state, d_y), masks))
        args = now[0], weights.extra, d_state, now[1]
        d_state, z_t, z_x_t, *more = chained(one, args, ask, on.outline)
        d_z, d_z_x = jax.tree.map(partial(put, t=t), (d_z, d_z_x), (z_t, z_x_t))
        return d_z, d_z_x, d_state, *jax.tree.map(jnp.add, sums, more)

    rows = state[0].shape[:-1]
    d_extra = [
        jnp.zeros((*rows, *a.shape) if a.ndim < 2 else a.shape, a.dtype)
        if own
        else None
        for a, own in zip(weights.extra, summed_here, strict=True)
    ]
    starts = spec.starts and masks.keep is not None
    d_start = tuple(map(jnp.zeros_like, state)) if starts else None
    d_z_x = [
        None
        if s or not is_float(like)
        else like_rows(state[0], T, like.shape[-1], like.dtype)
        if own is None
        else own
        for like, own, s in zip(step.z_x, saved.z_x, summed, strict=True)
    ]
    carry = tuple(saved.z), tuple(d_z_x), state, d_extra, d_start
    d_z, d_z_x, d_state, d_extra, d_start = lax.fori_loop(0, T, body, carry)
    if any(summed):
        d_z_x = (d_z[step.called.index(step.sum_of)], *d_z_x[1:])
    return Gradients(tuple(d_z_x), tuple(d_z), tuple(d_extra), d_state, d_start)


def chained(one: Any, args: Any, ask: Any, outline: bool) -> Any:
    """`one(*args)`, the stages between its products outlined or not."""
    chain, held, out = trace(one, *args)
    call = outlined if outline else lambda f: f
    values = run(chain, [*jax.tree.leaves(args), *held], ask, call)
    return jax.tree.unflatten(jax.tree.structure(out), values)


def outlined(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as a call that XLA does not inline, and so does not fuse with others.

    On a CPU, XLA computes a cheap chain anew in every kernel that reads it, and gates
    that read their input at an offset do not vectorize.
    """

    @jax.jit
    def inner(*args: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # for calls inside
            return f(*args)

    def call(*args: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return inner(*args)

    return call


def in_halves(step: Step, h: Array) -> list[slice]:
    """The rows of the batch, in two halves where that is faster.

    XLA runs a small product on one core. With two independent halves in a step
    another core has work too; a large product takes all cores by itself, and for
    a tiny one handing over costs more than the work.
    """
    batch = h.shape[:-1]
    if not batch or any(map(is_symbolic_dim, h.shape)):
        return [WHOLE]
    rows = math.prod(batch)
    widths = [step.widths[k] for k in step.called]
    flops = 2 * rows * sum(I * O for I, O in widths)
    if rows < 32 or batch[0] % 2 or not 3e6 <= flops <= 6.4e7:
        return [WHOLE]
    half = batch[0] // 2
    return [slice(0, half), slice(half, batch[0])]


def block_of(T: Any, h: Array, weights: Weights) -> int | None:
    """How many steps to make input maps of at a time; None for all at once."""
    widths = [w.shape[-1] for w in weights.w_x if w is not None]
    if is_symbolic_dim(T) or any(map(is_symbolic_dim, h.shape)):
        return None
    if not widths:
        return None
    rows = math.prod(h.shape[:-1])
    size = 1 if rows >= MANY_ROWS else max(8, PROJECTED_ROWS // max(1, rows))
    return None if size >= T else size


def at(a: Array, t: Any, rows: slice = WHOLE, axis: int = 0) -> Array:
    """Step `t` of `a`, whose time is that axis, in those rows."""
    return of_rows(lax.dynamic_index_in_dim(a, t, axis, keepdims=False), rows)


def put(a: Array, value: Array, t: Any, rows: slice = WHOLE, axis: int = 0) -> Array:
    """`a`, whose time is that axis, with `value` at step `t`, in those rows."""
    start: list[Any] = [0] * value.ndim
    if rows.start:
        start[0] = rows.start
    axis %= a.ndim
    start.insert(axis, t)
    return lax.dynamic_update_slice(a, jnp.expand_dims(value, axis), start)


def of_rows(a: Array, rows: slice) -> Array:
    return a if rows == WHOLE else a[rows]


def join(states: Any) -> Any:
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *s: jnp.concatenate(s), *states)
