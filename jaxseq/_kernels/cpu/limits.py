"""What the kernels do not run, each limit as a sentence for the log and for errors."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.dtypes import FLOATS, state_dtype
from jaxseq._engine.types import Devices, Inputs, Spec, Weights, batch_of, out_dtype
from jaxseq._kernels.call import mesh_of
from jaxseq._kernels.cpu import build, spread
from jaxseq._kernels.cpu.blocks import blocks_in
from jaxseq._kernels.cpu.elements import is_held
from jaxseq._kernels.cpu.program import program_of
from jaxseq._kernels.cpu.pull import back_of
from jaxseq._kernels.cpu.rows import are_alike, dtype_of

# A single step is faster than XLA's with no gradient, few rows and so many products.
STEP_ROWS, STEP_PRODUCTS = 32, 1 << 16
FASTER = "a single step is faster without it"
FEW = 64  # rows over all steps; with fewer XLA, which packs nothing, is faster
EXPORTED = "an exported program runs without jaxseq, and so without its engine"


def why_not(
    devices: Devices, spec: Spec, weights: Weights, inputs: Inputs
) -> str | None:
    """The limit that a run forward would pass, or None."""
    limit = (
        _of_arrays(devices, spec, weights, inputs)
        or _of_devices(devices, spec, inputs.state)
        or _of_one_step(spec, weights, inputs)
    )
    if limit is not None:
        return limit
    alike = are_alike(spec.step, batch_of(spec.step, inputs.state), inputs.masks)
    program = program_of(spec.step, blocks_in(spec.step, weights), alike)
    if isinstance(program, str):
        return program
    return _of_dtype(spec, (weights, inputs)) or build.limit()


def why_not_back(
    devices: Devices, spec: Spec, weights: Weights, *others: Any
) -> str | None:
    """The limit that a run back would pass; it is given what `backward` is."""
    _, saved, masks, d_end, d_ys = others
    limit = _of_arrays(devices, spec, weights, others)
    limit = limit or _of_devices(devices, spec, d_end)
    if limit is not None:
        return limit
    if any(a.size == 0 for a in jax.tree.leaves(d_end)):
        return "there are no rows"
    if spec.implementation is None and len(jax.tree.leaves((saved, d_ys))[0]) == 1:
        return FASTER
    alike = are_alike(spec.step, batch_of(spec.step, d_end), masks)
    back = back_of(spec.step, blocks_in(spec.step, weights), alike)
    if isinstance(back, str):
        return back
    return _of_dtype(spec, (weights, others)) or build.limit()


def why_not_gradients(
    devices: Devices, factors: Any, terms: Any, d: Array
) -> str | None:
    """The limit that the products of gradients would pass, or None."""
    limit = _of_program(devices)
    if limit is not None:
        return limit
    if mesh_of(devices)[1]:
        return "it is for several devices"
    limit = _of_shapes(d, factors)
    if limit is not None:
        return limit
    for a in jax.tree.leaves((d, factors)):
        if 0 in a.shape:
            return f"an array of shape {a.shape} is empty"
    if math.prod(d.shape[:-1]) < FEW:
        return "there are few rows"
    return _of_gradients(d, factors, terms) or build.limit()


def _of_gradients(*arrays: Any) -> str | None:
    dtypes = {a.dtype for a in jax.tree.leaves(arrays)}
    if any(dtype.name not in FLOATS for dtype in dtypes):
        return "an array is not of floats"
    half = [dtype for dtype in dtypes if dtype.itemsize == 2]
    if len({jnp.dtype(state_dtype(dtype)) for dtype in dtypes}) > 1 or len(half) > 1:
        return "a matrix is of another dtype"
    return None


def _of_program(devices: Devices) -> str | None:
    if build.switch() == "0":
        return f"{build.SWITCH} is 0"
    return EXPORTED if devices.exported else None


def _of_shapes(*arrays: Any) -> str | None:
    for a in jax.tree.leaves(arrays):
        if any(map(is_symbolic_dim, a.shape)):
            return f"the shape {a.shape} is not known yet"
    return None


def _of_arrays(
    devices: Devices, spec: Spec, weights: Weights, others: Any
) -> str | None:
    limit = _of_program(devices) or _of_shapes(weights, others)
    if limit is not None:
        return limit
    step = spec.step
    if step.on_mesh or step.has_effects:
        return "the update has an effect, or holds arrays of a mesh"
    dtype = dtype_of(step)
    if dtype not in (jnp.float32, jnp.float64):
        return f"the kernel does not compute in {dtype}"
    for a in (*weights.w_x, *weights.w_h):
        if a is not None and 0 in a.shape:
            return f"a matrix {a.shape} is empty"
    return None


def _of_devices(devices: Devices, spec: Spec, state: Any) -> str | None:
    if spec.implementation is None and mesh_of(devices)[1]:
        return "how arrays lie on several devices is not known"
    return spread.limit(devices, math.prod(batch_of(spec.step, state)))


def _of_one_step(spec: Spec, weights: Weights, inputs: Inputs) -> str | None:
    """What is faster without the kernel, if nobody has asked for it."""
    x, state = inputs.x[0], inputs.state[0]
    T, rows = (
        x.shape[state.ndim - 1 if spec.batch_first else 0],
        math.prod(state.shape[:-1]),
    )
    if spec.implementation is not None or T > 1:
        return None
    matrices = jax.tree.leaves((weights.w_x, weights.w_h))
    few = rows * sum(w.size for w in matrices) < STEP_PRODUCTS
    return FASTER if spec.save or rows > STEP_ROWS or few else None


def _of_dtype(spec: Spec, arrays: Any) -> str | None:
    dtype = dtype_of(spec.step)
    ys = [jax.ShapeDtypeStruct(y.shape, out_dtype(spec, y)) for y in spec.step.ys]
    for a in jax.tree.leaves((arrays, ys)):
        if not is_held(dtype, a):
            return f"the state is {dtype}, and an array is {a.dtype}"
    return None
