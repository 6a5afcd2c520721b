"""Gradients of the terms of sums of products over all steps, by the native kernels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.dtypes import state_dtype
from jaxseq._engine.types import Before, Spec, to_batch_first, to_time_first
from jaxseq._kernels.cpu import build, spread
from jaxseq._kernels.cpu import call as native
from jaxseq._kernels.cpu.blocks import Blocks, blocks_of, in_blocks


def gradients(spec: Spec, factors: Any, terms: Any, d: Array) -> Any:
    """`terms`, with gradients in place of what has their shapes.

    Those of inputs are calls of their own, for XLA to leave out what is not used.
    """
    T, *batch, N = d.shape
    d = d.reshape(T, -1, N)
    sides = [_side(spec, a, spec.turned) for a in factors.x]
    sides += [_side(spec, a, isinstance(a, Before)) for a in factors.lefts]
    pairs = zip(factors.w, terms.x, strict=True)
    d_x = [_of_input(spec, d, w, batch, like.dtype) for w, like in pairs]
    whole = [i for i, w in enumerate(terms.w) if w.ndim == 2]
    d_w: list[Any] = [None] * len(terms.w)
    d_b: list[Array] = []
    if whole or terms.b:
        found = _sums(spec, [sides[i] for i in whole], bool(terms.b), d)
        for i, own in zip(whole, found, strict=False):
            d_w[i] = own
        d_b = found[len(whole) :] * len(terms.b)
    for i, w in enumerate(terms.w):
        if d_w[i] is None:
            d_w[i] = _of_blocks(spec, sides[i], w, d)
    like, tree = jax.tree.flatten(terms)
    found = zip((*d_x, *d_w, *d_b), like, strict=True)
    return tree.unflatten(a.reshape(b.shape).astype(b.dtype) for a, b in found)


class Side(NamedTuple):
    """The left side of a product, as a call takes it."""

    arrays: tuple[Array, ...]  # over time, then before the first step if `before`
    turned: bool
    before: bool


def _side(spec: Spec, a: Any, last: bool) -> Side:
    """Batch first if the input was, which cancels its transposition."""
    before = isinstance(a, Before)
    turned = last and spec.turned
    y = native.narrow(spec, a.y if before else a)
    T, F = len(y), y.shape[-1]
    y = to_batch_first(y).reshape(-1, T, F) if turned else y.reshape(T, -1, F)
    if not before:
        return Side((y,), turned, before)
    return Side((y, a.first.astype(y.dtype).reshape(-1, F)), turned, before)


def _of_input(spec: Spec, d: Array, w: Array, batch: list[int], dtype: Any) -> Array:
    """The gradient of what a matrix was applied to."""
    T, B, _ = d.shape
    lead = (B, T) if spec.turned else (T, B)
    how = {"turned": int(spec.turned), "before": 0, "lefts": 0}

    def one(d: Array, w: Array) -> Array:
        return _call(spec, [d, w], [(*lead, len(w))], dtype, **how)[0]

    w = native.narrow(spec, w)
    if w.ndim == 2:
        d_x = one(d, w)
    else:
        N, P, I, _, _ = blocks = blocks_of(w)
        d_x = jax.vmap(one)(_cut(d, blocks.turned), in_blocks(w))
        d_x = jnp.moveaxis(d_x.reshape(N, *lead, P, I), 0, -2)
    if spec.turned:
        return to_time_first(d_x.reshape(*batch, T, -1))
    return d_x


def _sums(spec: Spec, sides: list[Side], bias: bool, d: Array) -> list[Array]:
    """The gradients of matrices, then that of the bias if it is asked for."""
    bits = lambda some: sum(2**i for i, yes in enumerate(some) if yes)
    N, dtype = d.shape[-1], state_dtype(d.dtype)
    shapes = [(side.arrays[0].shape[-1], N) for side in sides]
    how = {
        "lefts": len(sides),
        "turned": bits(side.turned for side in sides),
        "before": bits(side.before for side in sides),
    }
    args = [d, *(a for side in sides for a in side.arrays)]
    return _call(spec, args, [*shapes, *[(N,)] * bias], dtype, **how)


def _of_blocks(spec: Spec, side: Side, w: Any, d: Array) -> Array:
    """That of a matrix in blocks: each is a member of a call."""
    blocks = blocks_of(w)

    def one(d: Array, *arrays: Array) -> Array:
        return _sums(spec, [side._replace(arrays=arrays)], False, d)[0]

    cut = (_cut(a, blocks) for a in side.arrays)
    return jax.vmap(one)(_cut(d, blocks.turned), *cut)


def _cut(a: Array, blocks: Blocks) -> Array:
    """What each of the blocks reads `(N, ..., P I)`, of rows `(..., P N I)`."""
    N, P, I, _, _ = blocks
    a = jnp.moveaxis(a.reshape(*a.shape[:-1], P, N, I), -2, 0)
    return a.reshape(*a.shape[:-2], P * I)


def _call(
    spec: Spec, args: list[Array], shapes: Any, dtype: Any, **how: int
) -> list[Array]:
    """One call; under `vmap`, of all members."""
    how |= {"reverse": int(spec.reverse), "vectors": native.VECTORS}

    def run(own: list[bool], args: list[Array]) -> list[Array]:
        said = spread.said_of(own, args)
        lead = (said["members"],) if any(own) else ()
        out = [jax.ShapeDtypeStruct((*lead, *shape), dtype) for shape in shapes]
        return list(jax.ffi.ffi_call(build.GRADIENTS, out)(*args, **how, **said))

    return spread.with_members(run, args)
