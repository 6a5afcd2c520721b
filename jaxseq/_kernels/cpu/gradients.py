"""Gradients of the terms of sums of products over all steps, by the native kernels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._engine.types import Before, Devices, Spec, to_batch_first, to_time_first
from jaxseq._kernels.call import mesh_of
from jaxseq._kernels.cpu import build
from jaxseq._kernels.cpu import call as native

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
    if any(w.ndim != 2 or w.dtype != d.dtype for w in (*factors.w, *terms.w)):
        return "a matrix is in blocks, or of another dtype"
    return build.limit()


def gradients(spec: Spec, factors: Any, terms: Any, d: Array) -> Any:
    """`terms`, with gradients in place of what has their shapes.

    Those of inputs are calls of their own, for XLA to leave out what is not used.
    """
    T, *batch, N = d.shape
    B, dtype, turned = math.prod(batch), d.dtype, spec.turned

    def of_steps(a: Array) -> Array:
        return a.reshape(T, B, a.shape[-1])

    def outer(a: Array) -> Array:
        """Batch first if the input was, which cancels its transposition."""
        a = to_batch_first(a).reshape(B, T, a.shape[-1]) if turned else of_steps(a)
        return a.astype(dtype)

    def call(args: Any, bits: int, matrices: Any, shapes: Any, **how: int) -> Any:
        out = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        f = jax.ffi.ffi_call(build.GRADIENTS, out, vmap_method="sequential")
        how = {"lefts": 0, "before": 0, **how, "reverse": int(spec.reverse)}
        how |= {"turned": bits if turned else 0, "vectors": native.VECTORS}
        return f(of_steps(d), *args, *matrices, **how)

    found: list[Array] = []
    for x, w in zip(terms.x, factors.w, strict=True):
        shape = (B, T, len(w)) if turned else (T, B, len(w))
        (d_x,) = call([], 1, [w], [shape])
        if turned:
            d_x = to_time_first(d_x.reshape(*batch, T, len(w)))
        found.append(d_x.reshape(x.shape))
    if terms.w or terms.b:
        args, bits, before = list(map(outer, factors.x)), 2 ** len(factors.x) - 1, 0
        for i, a in enumerate(factors.lefts, len(factors.x)):
            if isinstance(a, Before):
                args += [
                    outer(a.y),
                    a.first.reshape(B, a.first.shape[-1]).astype(dtype),
                ]
                bits, before = bits | 1 << i, before | 1 << i
            else:
                args.append(of_steps(a).astype(dtype))
        shapes = [*(w.shape for w in terms.w), *[(N,)] * bool(terms.b)]
        lefts = len(terms.w)
        d_w = call(args, bits, [], shapes, lefts=lefts, before=before)
        found += [*d_w[:lefts], *d_w[lefts:] * len(terms.b)]
    like, tree = jax.tree.flatten(terms)
    return tree.unflatten(a.astype(b.dtype) for a, b in zip(found, like, strict=True))
