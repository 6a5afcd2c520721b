"""Gradients of the terms of sums of products over all steps, by the native kernels."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._engine.types import Before, Devices, Spec, to_batch_first, to_time_first
from jaxseq._kernels.call import mesh_of
from jaxseq._kernels.cpu import build, spread
from jaxseq._kernels.cpu import call as native
from jaxseq._kernels.cpu.blocks import Blocks, blocks_of, in_blocks

FEW = 64  # rows, for which XLA is faster: nothing is packed


def why_not(devices: Devices, factors: Any, terms: Any, d: Array) -> str | None:
    """The limit of the kernel that these would pass, or None."""
    if build.switch() == "0":
        return f"{build.SWITCH} is 0"
    if devices.exported:
        return "an exported program runs without jaxseq"
    if mesh_of(devices)[1]:
        return "it is for several devices"
    if d.dtype not in (jnp.float32, jnp.float64):
        return f"{d.dtype} is neither float32 nor float64"
    for a in jax.tree.leaves((d, factors)):
        if any(map(is_symbolic_dim, a.shape)):
            return f"the shape {a.shape} is not known yet"
        if 0 in a.shape:
            return f"an array of shape {a.shape} is empty"
    if math.prod(d.shape[:-1]) < FEW:
        return "there are few rows"
    if any(w.dtype != d.dtype for w in (*factors.w, *terms.w)):
        return "a matrix is of another dtype"
    return build.limit()


def gradients(spec: Spec, factors: Any, terms: Any, d: Array) -> Any:
    """`terms`, with gradients in place of what has their shapes.

    Those of inputs are calls of their own, for XLA to leave out what is not used.
    """
    T, *batch, N = d.shape
    d = d.reshape(T, -1, N)
    sides = [_side(spec, a, spec.turned) for a in factors.x]
    sides += [_side(spec, a, isinstance(a, Before)) for a in factors.lefts]
    d_x = [_of_input(spec, d, w, batch) for w in factors.w]
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
    y = a.y if before else a
    T, F = len(y), y.shape[-1]
    y = to_batch_first(y).reshape(-1, T, F) if turned else y.reshape(T, -1, F)
    return Side((y, a.first.reshape(-1, F)) if before else (y,), turned, before)


def _of_input(spec: Spec, d: Array, w: Array, batch: list[int]) -> Array:
    """The gradient of what a matrix was applied to."""
    T, B, _ = d.shape
    lead = (B, T) if spec.turned else (T, B)
    how = {"turned": int(spec.turned), "before": 0, "lefts": 0}

    def one(d: Array, w: Array) -> Array:
        return _call(spec, [d, w], [(*lead, len(w))], **how)[0]

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
    N, dtype = d.shape[-1], d.dtype
    shapes = [(side.arrays[0].shape[-1], N) for side in sides]
    how = {
        "lefts": len(sides),
        "turned": bits(side.turned for side in sides),
        "before": bits(side.before for side in sides),
    }
    args = [d, *(a.astype(dtype) for side in sides for a in side.arrays)]
    return _call(spec, args, [*shapes, *[(N,)] * bias], **how)


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


def _call(spec: Spec, args: list[Array], shapes: Any, **how: int) -> list[Array]:
    """One call; under `vmap`, of all members."""
    dtype = args[0].dtype
    how |= {"reverse": int(spec.reverse), "vectors": native.VECTORS}

    def run(own: list[bool], args: list[Array]) -> list[Array]:
        said = spread.said_of(own, args)
        lead = (said["members"],) if any(own) else ()
        out = [jax.ShapeDtypeStruct((*lead, *shape), dtype) for shape in shapes]
        return list(jax.ffi.ffi_call(build.GRADIENTS, out)(*args, **how, **said))

    return spread.with_members(run, args)
