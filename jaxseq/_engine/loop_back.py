"""The way back through a loop over steps, from the last one to the first.

The gradients of the matrices are products over all steps, and come after the loop.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.dtypes import is_float
from jaxseq._base.masks import Masks, select
from jaxseq._engine.loop import Platform
from jaxseq._engine.outline import chained
from jaxseq._engine.products import times, transposed
from jaxseq._engine.slices import at, put
from jaxseq._engine.step import Step
from jaxseq._engine.steps import product_back, pull, reads
from jaxseq._engine.types import Gradients, Saved, Spec, Weights, batch_of, room


def backward(
    spec: Spec,
    on: Platform,
    weights: Weights,
    x: Any,
    saved: Saved,
    masks: Masks,
    d_end: Any,
    d_ys: Any,
) -> Gradients:
    """From the gradients of the state and outputs those of all but the matrices.

    `x` are the inputs that are their own input maps, None for others. The gradients
    of products take the place of the products. Gradients of weights in `extra` that
    are part of those of a product are left out.
    """
    step, needs = spec.step, reads(spec.step)
    T = jax.tree.leaves((d_ys, saved, x))[0].shape[0]
    batch = batch_of(step, d_end)
    narrow = spec.dtype if on.narrow else None
    w_h = [transposed(w) for w in weights.w_h]
    place = [None if k is None else step.called.index(k) for k in step.sums]
    # of the others the gradient is a part of that of a product
    summed_here = [
        is_float(a) and part is None
        for a, part in zip(step.extra, needs.parts, strict=True)
    ]

    def one(now: Any, extra: Any, d_state: Any, masks: Masks) -> Any:
        (z_x, z, old, d_ys), (valid, keep) = now, masks

        def some(a: Any, like: Any) -> Array:  # what is not read has any value
            return jnp.zeros((*batch, *like.shape), like.dtype) if a is None else a

        old = list(map(some, old, step.state))
        z_x = [
            some(a, like) if i is None else None
            for a, like, i in zip(z_x, step.z_x, place, strict=True)
        ]
        d_new = select(valid, gathered(step, d_state, d_ys))
        wide = [
            jnp.broadcast_to(a, (*batch, *a.shape)) if a.ndim < 2 else a for a in extra
        ]
        back = product_back(step)
        d = pull(step, len(batch), back, z_x, z, old, wide, *d_new, valid=valid)
        # a step that is not valid hands its gradient on
        d_old = select(valid, select(keep, d.state), tuple(d_state))
        fresh = None
        if spec.starts and keep is not None:
            fresh = select(~keep, d.state)
        more = [a if own else None for a, own in zip(d.extra, summed_here, strict=True)]
        return d_old, d.z, d.z_x, more, fresh

    def ask(k: int, d: Array) -> Array:
        return times(d, w_h[k], narrow, on.alone, step.precisions[k])

    def body(n: Any, carry: Any) -> Any:
        t = n if spec.reverse else T - 1 - n
        d_z, d_z_x, d_state, *sums = carry
        # the gradients so far stand where the maps of the steps before do
        z_x = [
            a if own is None else d
            for own, a, d in zip(saved.z_x, x, d_z_x, strict=True)
        ]
        now = jax.tree.map(partial(at, t=t), ((z_x, d_z, saved.state, d_ys), masks))
        args = now[0], weights.extra, d_state, now[1]
        d_state, z_t, z_x_t, *more = chained(one, args, ask, on.outline, in_place)
        d_z, d_z_x = jax.tree.map(partial(put, t=t), (d_z, d_z_x), (z_t, z_x_t))
        return d_z, d_z_x, d_state, *jax.tree.map(jnp.add, sums, more)

    def in_place(args: Any, out: Any) -> Any:
        (z_x, z, *_), *_ = args
        _, d_z, d_z_x, *_ = out
        own = [None if a is None else d for a, d in zip(saved.z_x, d_z_x, strict=True)]
        pairs = zip((*z, *z_x), (*d_z, *own), strict=True)
        return [pair for pair in pairs if None not in pair]

    d_extra = [
        jnp.zeros((*batch, *a.shape) if a.ndim < 2 else a.shape, a.dtype)
        if own
        else None
        for a, own in zip(weights.extra, summed_here, strict=True)
    ]
    starts = spec.starts and masks.keep is not None
    d_start = jax.tree.map(jnp.zeros_like, tuple(d_end)) if starts else None
    d_z_x = [
        None
        if i is not None or not is_float(like)
        else room(T, batch, like)
        if own is None
        else own
        for like, own, i in zip(step.z_x, saved.z_x, place, strict=True)
    ]
    carry = tuple(saved.z), tuple(d_z_x), tuple(d_end), d_extra, d_start
    d_z, d_z_x, d_state, d_extra, d_start = lax.fori_loop(0, T, body, carry)
    d_z_x = tuple(d if i is None else d_z[i] for d, i in zip(d_z_x, place, strict=True))
    return Gradients(d_z_x, tuple(d_z), tuple(d_extra), d_state, d_start)


def gathered(step: Step, d_state: Any, d_ys: Any) -> tuple[Any, Any]:
    """Gradients of the new state and of outputs; those that are its parts in it."""
    d_new, others = list(d_state), list(d_ys)
    for j, (p, d) in enumerate(zip(step.tells, d_ys, strict=True)):
        if p is not None and d is not None:
            d_new[p], others[j] = d_new[p] + d.astype(d_new[p].dtype), None
    return tuple(d_new), tuple(others)
