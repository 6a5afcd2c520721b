"""A cell over time on a TPU, forward and backward: a step each for the one kernel.

The steps are those of the engine, `evaluate` and `pull`, with products on the chip,
for one tile of rows.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.masks import Masks, select
from jaxseq._engine.products import project
from jaxseq._engine.steps import Product, evaluate, pull, reads
from jaxseq._engine.types import (
    Devices,
    Gradients,
    Inputs,
    Saved,
    Spec,
    Weights,
    is_saved,
)
from jaxseq._kernels.call import Operands, call
from jaxseq._kernels.tpu.scan import scan
from jaxseq._kernels.tpu.tiles import chip


class Marks(NamedTuple):
    """Which masks there are."""

    valid: bool
    keep: bool


def forward(
    devices: Devices, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array], Saved | None]:
    """The state, `(y,)`, and what the backward pass needs if `spec.save`."""
    x, state, start, masks = inputs
    batch = state[0].shape[:-1]
    z_x = project(
        spec.step,
        weights,
        select(masks.valid, x),
        narrow=spec.dtype,
        alone=devices.number == 1,
    )
    keep_x, keep_state = is_saved(spec, weights)
    operands = Operands(
        for_kernel(spec, weights),
        flat(start),
        flat(state),
        (flat(z_x, 1), _bits(masks, len(batch))),
    )
    step = partial(forward_step, spec, tuple(keep_state), _marks(masks))
    out = call(partial(scan, step, chip(devices), spec.reverse), devices, operands)
    end, (y, z, old) = unflat(out, batch)
    if not spec.save:
        return end, (y,), None
    z_x = tuple(a if yes else None for a, yes in zip(z_x, keep_x, strict=True))
    return end, (y,), Saved(z_x, z, old)


def backward(
    devices: Devices,
    spec: Spec,
    weights: Weights,
    x: Any,
    saved: Saved,
    masks: Masks,
    d_end: Any,
    d_ys: tuple[Array],
) -> Gradients:
    """From the gradients of the state and `y` those of all but the matrices.

    `x` are the inputs that are their own input maps, None for others.
    """
    (d_y,), step = d_ys, spec.step
    batch = d_y.shape[1:-1]
    z_x = [a if own is None else own for own, a in zip(saved.z_x, x, strict=True)]
    z_x = [a if k is None else None for a, k in zip(z_x, step.sums, strict=True)]
    rows = math.prod(batch)
    d_extra = tuple(
        jnp.zeros((rows, *a.shape), a.dtype) if own else None
        for a, own in zip(step.extra, own_extra(spec), strict=True)
    )
    starts = spec.starts and masks.keep is not None
    d_end = flat(tuple(d_end))
    d_start = tuple(map(jnp.zeros_like, d_end)) if starts else None
    streams = flat((tuple(z_x), saved.z, saved.state, d_y), 1)
    operands = Operands(
        for_kernel(spec, weights),
        None,
        (d_end, d_extra, d_start),
        (*streams, _bits(masks, len(batch))),
    )
    run = partial(backward_step, spec, _marks(masks))
    out = call(partial(scan, run, chip(devices), not spec.reverse), devices, operands)
    (d_state, d_extra, d_start), (d_z_x, d_z) = unflat(out, batch)
    d_z_x = tuple(
        d if k is None else d_z[step.called.index(k)]
        for d, k in zip(d_z_x, step.sums, strict=True)
    )
    return Gradients(d_z_x, d_z, d_extra, d_state, d_start)


def for_kernel(spec: Spec, weights: Weights) -> Any:
    """The matrices that are called, in the dtype of what they read, and the extras."""
    w_h = tuple(weights.w_h[k].astype(spec.dtype) for k in spec.step.called)
    return w_h, tuple(a[None] for a in weights.extra)


def own_extra(spec: Spec) -> list[bool]:
    """Whether the gradient of an extra is summed here, not part of another."""
    return [part is None for part in reads(spec.step).parts]


def flat(tree: Any, lead: int = 0) -> Any:
    """Leaves `(..., F)`, behind `lead` axes, as `(B, F)`."""

    def one(a: Array) -> Array:
        rows = math.prod(a.shape[lead:-1])
        return a.reshape(*a.shape[:lead], rows, a.shape[-1])

    return jax.tree.map(one, tree)


def unflat(out: Any, batch: tuple[int, ...]) -> Any:
    one = lambda a: a.reshape(*a.shape[:-2], *batch, a.shape[-1])
    return jax.tree.map(one, out)


def _marks(masks: Masks) -> Marks:
    return Marks(*(m is not None for m in masks))


def _bits(masks: Masks, batch: int) -> Array | None:
    """Both masks in one (T, B, 1): in VMEM its last axis is as long as 128."""
    some = [m.astype(jnp.int32) << k for k, m in enumerate(masks) if m is not None]
    return flat(sum(some[1:], start=some[0])[..., None], 1) if some else None


def _select(is_masked: bool, bits: Any, k: int, on: Any, off: Any = None) -> Any:
    """`on` where bit `k` is set, else `off` or 0; leaves (B, F)."""
    if not is_masked:
        return on
    off = jax.tree.map(jnp.zeros_like, on) if off is None else off
    # widened as integers, for what is compared there has to be as wide as `on`
    bit = lambda a: jnp.broadcast_to(bits, a.shape) & (1 << k) != 0
    return jax.tree.map(lambda a, b: jnp.where(bit(a), a, b), on, off)


def _product(spec: Spec, w_h: Any, axis: int) -> Product:
    """A row times matrix k, over `axis` of it; in float32 by the default precision."""
    asked = jax.config.jax_default_matmul_precision  # pyright: ignore
    least = asked in (None, "default", "fastest", "bfloat16")
    # of the precisions between the two the kernel has none
    exact = spec.dtype == jnp.float32 and not least

    def product(k: int, a: Array) -> Array:
        # rounded on the way back too: the matrix unit takes two of a kind
        return lax.dot_general(
            a.astype(spec.dtype),
            w_h[spec.step.called.index(k)],
            (((0,), (axis,)), ((), ())),
            precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
            preferred_element_type=jnp.float32,
        )

    return product


def _of_rows(extra: Any, like: Array) -> list[Array]:
    return [jnp.broadcast_to(a, (like.shape[0], a.shape[1])) for a in extra]


def forward_step(
    spec: Spec,
    keep_state: tuple[bool, ...],
    masked: Marks,
    weights: Any,
    start: Any,
    state: Any,
    x: Any,
) -> tuple[Any, Any]:
    (w_h, extra), (z_x, bits) = weights, x
    valid = partial(_select, masked.valid, bits, 0)
    old = _select(masked.keep, bits, 1, state, start)
    ask, extra = _product(spec, w_h, 0), _of_rows(extra, old[0])
    new, _, z, _ = evaluate(spec.step, 1, ask, z_x, old, extra, extra_axis=0)
    y = valid(new[0]).astype(spec.dtype)
    new = valid(tuple(new), state)
    if not spec.save:
        return new, (y, None, None)
    old = tuple(a if yes else None for a, yes in zip(old, keep_state, strict=True))
    return new, (y, tuple(z), old)


def backward_step(
    spec: Spec, masked: Marks, weights: Any, _: None, carry: Any, x: Any
) -> tuple[Any, Any]:
    (w_h, extra), (d_state, d_extra, d_start) = weights, carry
    z_x, z, old, d_y, bits = x
    step, rows = spec.step, d_y.shape[0]
    valid = partial(_select, masked.valid, bits, 0)

    def some(a: Any, like: Any) -> Array:  # what is not read has any value
        return jnp.zeros((rows, *like.shape), like.dtype) if a is None else a

    old = list(map(some, old, step.state))
    z_x = [
        some(a, like) if k is None else None
        for a, like, k in zip(z_x, step.z_x, step.sums, strict=True)
    ]
    d_h, *others = d_state
    d_new = valid((d_h + d_y.astype(d_h.dtype), *others))
    ask, extra = _product(spec, w_h, 1), _of_rows(extra, d_y)
    d = pull(step, 1, ask, z_x, z, old, extra, d_new, (None,))
    # in a step that is not valid a gradient may be NaN
    d_old = valid(_select(masked.keep, bits, 1, d.state), d_state)
    more = tuple(
        valid(a) if own else None
        for a, own in zip(d.extra, own_extra(spec), strict=True)
    )
    d_extra = jax.tree.map(jnp.add, d_extra, more)
    if d_start is not None:
        none = jax.tree.map(jnp.zeros_like, d.state)
        fresh = _select(masked.keep, bits, 1, none, d.state)
        d_start = jax.tree.map(jnp.add, d_start, fresh)
    return (d_old, d_extra, d_start), (valid(d.z_x), valid(d.z))
