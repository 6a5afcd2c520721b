"""A cell over time on a CPU, as a custom call of the native kernels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim
from jax.sharding import AxisType

from jaxseq._base.masks import Masks
from jaxseq._engine.types import (
    Devices,
    Inputs,
    Saved,
    Spec,
    Weights,
    kept,
    out_dtype,
)
from jaxseq._kernels.cpu import build
from jaxseq._kernels.cpu.plan import Flags, Numbers, numbers_of
from jaxseq._kernels.cpu.program import program_of, width
from jaxseq._kernels.cpu.pull import back_of

ROWS = 32  # of a block, at most
VECTORS = 2  # 0 for the portable kernel, 1 for that for AVX2; for tests


def why_not(
    devices: Devices, spec: Spec, weights: Weights, inputs: Inputs
) -> str | None:
    """The limit of the kernel that a run would pass, or None."""
    program = program_of(spec.step)
    limit = _limit(devices, spec, weights, inputs)
    if limit is None:
        limit = _of_dtype(spec, inputs.x, spec.step.state[0].dtype, bool)
    if limit is not None:
        return limit
    return program if isinstance(program, str) else build.limit()


def why_not_back(
    devices: Devices, spec: Spec, weights: Weights, *others: Any
) -> str | None:
    """The limit that a run back would pass; it is given what `backward` is."""
    limit = _limit(devices, spec, weights, others)
    x, saved, _, d_end, d_ys = others
    if limit is None:
        arrays = x, saved, d_end, d_ys
        limit = _of_dtype(spec, arrays, spec.step.state[0].dtype)
    if limit is not None:
        return limit
    if jax.tree.leaves(d_end)[0].size == 0:
        return "there are no rows"
    back = back_of(spec.step)
    return back if isinstance(back, str) else build.limit()


def _of_dtype(spec: Spec, arrays: Any, *known: Any) -> str | None:
    dtype = spec.step.state[0].dtype
    for a in jax.tree.leaves(arrays):
        if a.dtype not in known:
            return f"the state is {dtype}, and an array is {a.dtype}"
    return None


def _limit(devices: Devices, spec: Spec, weights: Weights, others: Any) -> str | None:
    if build.switch() == "0":
        return f"{build.SWITCH} is 0"
    if not _is_on_one(devices):
        return "it is for several devices"
    step, dtype = spec.step, spec.step.state[0].dtype
    if dtype not in (jnp.float32, jnp.float64):
        return f"{dtype} is neither float32 nor float64"
    for a in jax.tree.leaves((weights, others)):
        if any(map(is_symbolic_dim, a.shape)):
            return f"the shape {a.shape} is not known yet"
    if step.native or step.has_effects:
        return "the update has an effect, or holds arrays of a mesh"
    if any(out_dtype(spec, y) not in (dtype, bool) for y in step.ys):
        return f"the state is {dtype}, and an output is not"
    if (limit := _of_dtype(spec, weights, dtype, bool)) is not None:
        return limit
    for a in (*weights.w_x, *weights.w_h):
        if a is not None and (a.ndim != 2 or 0 in a.shape):
            return f"a matrix {a.shape} is empty or in blocks"
    return None


def _is_on_one(devices: Devices) -> bool:
    """Whether it runs on one device, or on a part of a `shard_map` over all axes."""
    types = getattr(devices.mesh, "axis_types", ())
    manual = bool(types) and all(t == AxisType.Manual for t in types)
    return devices.number == 1 or (devices.number is None and manual)


def forward(
    devices: Devices, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array, ...], Saved | None]:
    """The state, the outputs, and what the backward pass needs if `spec.save`."""
    step, program = spec.step, program_of(spec.step)
    assert not isinstance(program, str)
    x, state, start, masks = inputs
    keep_x, keep_state = [False] * len(x), [False] * len(state)
    if spec.save:
        keep_x, keep_state = kept(spec, weights)
    start = start if masks.keep is not None else None
    flags = Flags(start is not None, keep_x, keep_state, ROWS)
    lead, first = state[0].shape[:-1], spec.batch_first
    B, T = math.prod(lead), x[0].shape[len(lead) if first else 0]
    rows = lambda a: a.reshape(B, width(a, lead))

    def of_steps(a: Array) -> Array:
        F = width(a, (T, *lead))
        return a.reshape((B, T, F) if first else (T, B, F))

    whole = (*lead, T) if first else (T, *lead)
    flat = (B, T) if first else (T, B)
    # in the order in which src/read.h takes them; of results the shapes, there and here
    args: list[Array] = []
    out: list[tuple[Any, Any, Any]] = []
    own = step.state[0].shape[:-1]

    def result(a: Any, here: Any, there: Any) -> tuple[Any, Any, Any]:
        F = a.shape[len(own) :]
        return (*there, width(a, own)), (*here, *F), a.dtype

    saved = lambda a: result(a, (T, *lead), (T, B))
    parts = zip(x, weights.w_x, weights.b, strict=True)
    for i, (a, w, b) in enumerate(parts):
        args += [of_steps(a), *(p for p in (w, b) if p is not None)]
        out += [saved(step.z_x[i])] * keep_x[i]
    for k, z in zip(step.called, step.z, strict=True):
        args.append(weights.w_h[k])
        out += [saved(z)] * spec.save
    args += [a.reshape(width(a)) for a in weights.extra]
    for i, a in enumerate(state):
        args += [rows(a), *([] if start is None else [rows(start[i])])]
        part = step.state[i]
        out += [result(part, lead, (B,)), *[saved(part)] * keep_state[i]]
    out += [result(y, whole, flat) for y in step.ys]
    args += [m.reshape(T, B) for m in masks if m is not None]
    numbers = numbers_of(spec, weights, program, flags)
    found = iter(run(numbers, masks, args, out, step.state[0].dtype))

    def some(flags: Any) -> tuple[Any, ...]:
        return tuple(next(found) if yes else None for yes in flags)

    z_x = some(keep_x)
    z = some([spec.save] * len(step.called))
    states = [(next(found), *some([yes])) for yes in keep_state]
    end, old = zip(*states, strict=True)
    ys = tuple(found)
    return end, ys, Saved(z_x, z, old) if spec.save else None


def run(
    numbers: Numbers, masks: Masks, args: Any, out: Any, dtype: Any, over: Any = ()
) -> list[Array]:
    """`out` has of each result its shape there, that here, and its dtype here.

    `over` are pairs of an argument and of the result that may take its place.
    """
    which = (masks.valid is not None) + 2 * (masks.keep is not None)
    program = (
        jnp.array([which, VECTORS, *numbers.plan], jnp.int32),
        jnp.array(numbers.code, jnp.int32),
        jnp.array(numbers.values, dtype),
    )
    of_masks = len(args) - which.bit_count()
    args = [a.astype(dtype) if i < of_masks else a for i, a in enumerate(args)]
    struct = [jax.ShapeDtypeStruct(there, dtype) for there, _, _ in out]
    call = jax.ffi.ffi_call(
        build.TARGET,
        struct,
        vmap_method="sequential",
        input_output_aliases={len(program) + i: j for i, j in over},
    )
    pairs = zip(call(*program, *args), out, strict=True)
    return [a.reshape(here).astype(kind) for a, (_, here, kind) in pairs]
