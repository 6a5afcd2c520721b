"""The platforms and what runs on each: one table.

A backend is a name, a `why_not`, a forward and a backward. Which one runs is decided
when a program is lowered, for the platform that it is lowered for; nothing is traced
for others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.sharding import ManualAxisType, NamedSharding, PartitionSpec

from jaxseq._base.check import check
from jaxseq._base.dtypes import is_float
from jaxseq._engine import loop
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.recall import only_recalled, recalled, whole
from jaxseq._engine.step import jaxpr_of, step_by
from jaxseq._engine.steps import reads
from jaxseq._engine.types import (
    Devices,
    Gradients,
    Inputs,
    Saved,
    Spec,
    Weights,
    as_written,
    batch_of,
    kept,
    out_dtype,
    to_batch_first,
    to_time_first,
)


class Backend(NamedTuple):
    """What runs a cell on devices; `why_not` is given what the other two are."""

    name: str
    why_not: Callable[..., str | None]  # the limit that a run passes
    forward: Callable[..., Any]  # (devices, spec, weights, inputs)
    backward: Callable[..., Any]  # (devices, spec, weights, x, saved, masks, d_…)


def _loop(name: str, on: loop.Platform) -> Backend:
    def platform(devices: Devices) -> loop.Platform:
        # a sharded batch is not cut in two, nor merged with time
        several: Any = {"halves": False, "alone": False}
        return on if devices.number == 1 else on._replace(**several)

    def forward(devices: Devices, spec: Spec, *args: Any) -> Any:
        return loop.forward(spec, platform(devices), *args)

    def backward(devices: Devices, spec: Spec, *args: Any) -> Any:
        return loop.backward(spec, platform(devices), *_whole(spec, *args))

    return Backend(name, lambda *_: None, forward, backward)


def _whole(spec: Spec, weights: Weights, x: Any, saved: Saved, *others: Any) -> Any:
    """The arguments of a backward pass that reads all that was saved as arrays."""
    return weights, x, whole(spec, saved), *others


LOOP = _loop("loop", loop.Platform(narrow=True, outline=False, halves=False))
CPU_LOOP = _loop("loop", loop.Platform(narrow=False, outline=True, halves=True))


def _pallas() -> Backend:
    """The kernel for TPUs, imported where it may run: Pallas takes a while."""

    def why_not(*args: Any) -> str | None:
        from jaxseq._kernels.tpu import limits

        return limits.why_not(*args)

    def forward(devices: Devices, spec: Spec, weights: Weights, inputs: Inputs) -> Any:
        from jaxseq._kernels.tpu import steps

        if not spec.batch_first:
            return steps.forward(devices, spec, weights, inputs)
        turned = inputs._replace(x=tuple(map(to_time_first, inputs.x)))
        end, ys, _ = steps.forward(devices, spec, weights, turned)
        return end, tuple(map(to_batch_first, ys)), None

    def backward(devices: Devices, spec: Spec, *args: Any) -> Any:
        from jaxseq._kernels.tpu import steps

        return steps.backward(devices, spec, *_whole(spec, *args))

    return Backend("pallas", why_not, forward, backward)


PALLAS = _pallas()


def _native() -> Backend:
    """The kernel in C++ for CPUs; where it cannot go back, the loop does."""

    def why_not(*args: Any) -> str | None:
        from jaxseq._kernels.cpu import call

        # the backward pass is given what was saved: the forward pass has run then
        return call.why_not(*args) if len(args) == 4 else None

    def forward(*args: Any) -> Any:
        from jaxseq._kernels.cpu import call

        return call.forward(*args)

    def backward(*args: Any) -> Any:
        from jaxseq._kernels.cpu import back, call

        run = back.backward if call.why_not_back(*args) is None else CPU_LOOP.backward
        return run(*args)

    return Backend("native", why_not, forward, backward)


NATIVE = _native()


def backends_of(platform: str) -> list[Backend]:
    """Those of a platform, the best first."""
    from jaxseq._kernels import call

    if platform == "tpu":
        return [PALLAS, LOOP]
    if platform == "cpu":
        own = [NATIVE, CPU_LOOP]
    else:
        own = [LOOP]
    return [*own, PALLAS] if call.INTERPRET else own


def forward(spec: Spec, weights: Weights, inputs: Inputs) -> Any:
    """State and outputs; if `spec.save`, what was saved and what `recalled` gives."""
    return _bind("forward", spec, (weights, inputs))


def backward(spec: Spec, *args: Any) -> Gradients:
    """Gradients, from (weights, x, saved, masks, d_end, d_ys)."""
    return _bind("backward", spec, args)


# One primitive, so that a branch is traced only for the platform that runs it, and
# `vmap` over rows adds to the batch. Its derivative is in `rule.py`, and belongs to
# the primitive, for a `custom_jvp` does not outlive a scan that is linearized.
run_p = Primitive("jaxseq_run")
run_p.multiple_results = True


def _bind(kind: str, spec: Spec, args: Any) -> Any:
    leaves, tree = jax.tree.flatten(args)
    out = jax.tree.structure(_shapes(kind, spec, args))
    params = {"kind": kind, "tree": tree, "members": ()}
    params |= {"update": jaxpr_of(spec.step), "spec": spec._replace(step=None)}
    return out.unflatten(bind(leaves, params))


def bind(leaves: Any, params: Any) -> list[Array]:
    return run_p.bind(*leaves, **params)


def spec_of(params: Any) -> Spec:
    return params["spec"]._replace(step=step_by(params["update"]))


@dataclass(frozen=True)
class Leaf:
    """An output: its shape is time if `over_time`, the batch, and `features`.

    Where time follows the batch it is one of the features.
    """

    over_time: bool
    batch: bool
    features: tuple[int, ...]
    dtype: Any


def _shapes(kind: str, spec: Spec, args: Any) -> Any:
    """What a run returns, as `Leaf`s."""
    step = spec.step
    weights = args[0]
    row = lambda a: Leaf(False, True, a.shape, a.dtype)
    over_time = lambda a: Leaf(True, True, a.shape, a.dtype)
    z: Any = tuple(map(over_time, step.z))
    some: Any = lambda f, flags, like: tuple(
        f(a) if yes else None for yes, a in zip(flags, like, strict=True)
    )
    state: Any = tuple(map(row, step.state))
    if kind == "forward":
        ys = [Leaf(True, True, a.shape, out_dtype(spec, a)) for a in step.ys]
        if spec.batch_first:
            T = args[1].x[0].shape[-2]
            ys = [Leaf(False, True, (T, *y.features), y.dtype) for y in ys]
        ys = tuple(ys)
        if not spec.save:
            return state, ys, None, None
        keep_x, keep_state = kept(spec, weights)
        saved = Saved(
            some(over_time, keep_x, step.z_x),
            z,
            some(over_time, keep_state, step.state),
        )
        lefts: Any = tuple(map(over_time, step.lefts))
        return state, ys, saved, only_recalled(spec, lefts)
    own = [
        is_float(a) and part is None
        for a, part in zip(step.extra, reads(step).parts, strict=True)
    ]
    extra = lambda a: Leaf(False, len(a.shape) < 2, a.shape, a.dtype)
    starts = spec.starts and args[3].keep is not None
    state = some(row, map(is_float, step.state), step.state)
    return Gradients(
        some(over_time, map(is_float, step.z_x), step.z_x),
        z,
        some(extra, own, step.extra),
        state,
        state if starts else None,
    )


def _features(kind: str, spec: Spec, args: Any) -> Any:
    """For each argument how many axes follow its batch; -1 if it has none."""
    step = spec.step
    none = lambda tree: jax.tree.map(lambda _: -1, tree)
    masks = lambda tree: jax.tree.map(lambda _: 0, tree)

    def own(tree: Any, parts: Any, more: int = 0) -> Any:
        pairs = zip(tree, parts, strict=True)
        number = lambda a, n: jax.tree.map(lambda _: n, a)  # both of a `Before`
        return tuple(number(a, len(b.shape) + more) for a, b in pairs)

    if kind == "forward":
        weights, (x, state, start, m) = args
        start = None if start is None else own(start, step.state)
        x = own(x, step.z_x, int(spec.batch_first))
        return none(weights), Inputs(x, own(state, step.state), start, masks(m))
    weights, x, saved, m, d_end, d_ys = args
    parts = zip(saved, (step.z_x, step.z, step.state), strict=True)
    kept = Saved(*(own(*pair) for pair in parts))
    d_end, d_ys = own(d_end, step.state), own(d_ys, step.ys)
    return none(weights), own(x, step.z_x), kept, masks(m), d_end, d_ys


def _unmapped(avals: Any, members: Any) -> list[tuple[int, ...]]:
    """Shapes of the arguments of one member."""
    shapes = [tuple(a.shape) for a in avals]
    for axes in reversed(members):
        shapes = [
            s if axis is None else s[:axis] + s[axis + 1 :]
            for s, axis in zip(shapes, axes, strict=True)
        ]
    return shapes


def mapped_sizes(avals: Any, members: Any) -> list[int]:
    """Sizes of the axes of members, the outermost first."""
    shapes, sizes = [tuple(a.shape) for a in avals], []
    for axes in reversed(members):
        sizes.append(
            next(s[i] for s, i in zip(shapes, axes, strict=True) if i is not None)
        )
        shapes = [
            s if axis is None else s[:axis] + s[axis + 1 :]
            for s, axis in zip(shapes, axes, strict=True)
        ]
    return sizes


def _out(avals: Any, params: Any) -> Any:
    """Leaves of the output, the axes of members, T and the batch."""
    kind, members = params["kind"], params["members"]
    one = [
        jax.ShapeDtypeStruct(s, a.dtype)
        for s, a in zip(_unmapped(avals, members), avals, strict=True)
    ]
    args = params["tree"].unflatten(one)
    spec = spec_of(params)
    state = args[1].state if kind == "forward" else args[4]
    over_time = args[1].x if kind == "forward" else (args[5], args[2], args[1])
    T = jax.tree.leaves(over_time)[0].shape[0]
    leaves = jax.tree.leaves(_shapes(kind, spec, args))
    return leaves, mapped_sizes(avals, members), T, batch_of(spec.step, state)


@run_p.def_abstract_eval
def _(*avals: Any, **params: Any) -> list[Any]:
    leaves, lead, T, batch = _out(avals, params)
    placed = placing(avals)

    def aval(leaf: Leaf) -> Any:
        own = (T,) if leaf.over_time else ()
        return placed(
            (*lead, *own, *(batch if leaf.batch else ()), *leaf.features), leaf.dtype
        )

    return list(map(aval, leaves))


def placing(avals: Any) -> Callable[..., ShapedArray]:
    """Makes types of results: on the mesh of the arguments, where they vary."""
    meshes = [a.sharding.mesh for a in avals if not a.sharding.mesh.empty]
    axes = (a.manual_axis_type.varying for a in avals)
    kind = ManualAxisType(varying=frozenset().union(*axes))

    def placed(shape: Any, dtype: Any) -> ShapedArray:
        spec = PartitionSpec(*[None] * len(shape))
        whole = NamedSharding((*meshes, NO_MESH)[0], spec)
        return ShapedArray(shape, dtype, sharding=whole, manual_axis_type=kind)

    return placed


def _batched(args: Any, dims: Any, **params: Any) -> Any:
    """`vmap`: an axis of rows goes into the batch, others are members."""
    kind, members = params["kind"], params["members"]
    sizes = [a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None]
    tree, spec = params["tree"], spec_of(params)
    features = jax.tree.leaves(_features(kind, spec, tree.unflatten(args)))
    weights = any(f < 0 and d is not None for f, d in zip(features, dims, strict=True))
    summed = kind == "backward" and any(len(a.shape) > 1 for a in spec.step.extra)
    if weights or summed or members:
        axes = tuple(dims)
        out = bind(args, {**params, "members": (*members, axes)})
        return out, [0] * len(out)
    if spec.batch_first and _is_time_first(tree, args, dims):
        time_first = params["spec"]._replace(batch_first=False)
        return _batched(args, dims, **{**params, "spec": time_first})

    def fold(a: Array, dim: Any, features: int) -> Array:
        if features < 0:
            return a
        if dim is None:
            a = jnp.broadcast_to(a, (sizes[0], *a.shape))
            dim = 0
        return jnp.moveaxis(a, dim, a.ndim - 1 - features)

    out = bind(list(map(fold, args, dims, features)), params)
    shapes = _unmapped(args, [tuple(dims)])
    one = [jax.ShapeDtypeStruct(s, a.dtype) for s, a in zip(shapes, args, strict=True)]
    leaves = _out(one, params)[0]
    return out, [
        a.ndim - 1 - len(leaf.features) for a, leaf in zip(out, leaves, strict=True)
    ]


def _is_time_first(tree: Any, args: Any, dims: Any) -> bool:
    """Whether `vmap` adds the first axis of rows to x, and adds it behind time.

    Without rows both layouts are the same, so the run can go on time first.
    """
    x, dim = (tree.unflatten(each)[1].x[0] for each in (args, dims))
    return x.ndim == 3 and dim not in (None, 0)


batching.primitive_batchers[run_p] = _batched


def _lower(run: Any, platform: str, ctx: Any, *values: Any, **params: Any) -> Any:
    """Lowers `run(platform, devices, params, *values)`."""
    number = getattr(ctx.module_context.axis_context, "num_devices", None)
    meshes = [a.sharding.mesh for a in ctx.avals_in if not a.sharding.mesh.empty]
    mesh = (*meshes, jax.sharding.get_abstract_mesh())[0]
    devices = Devices(number, mesh, ctx.module_context.lowering_parameters.for_export)
    if platform == "default":
        platform = " or ".join(ctx.platforms or ctx.module_context.platforms)
    run = partial(run, platform, devices, params)
    plain = [ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
    lowered = mlir.lower_fun(run, multiple_results=True)
    return lowered(ctx.replace(avals_in=plain), *values)


def _run(platform: str, devices: Devices, params: Any, *leaves: Array) -> list[Array]:
    kind, tree, members = (params[k] for k in ("kind", "tree", "members"))
    spec = spec_of(params)

    def one(*leaves: Any) -> list[Array]:
        args = tree.unflatten(leaves)
        backend = _chosen(platform, devices, spec, args)
        out: Any = getattr(backend, kind)(devices, spec, *args)
        if kind == "forward" and spec.save:
            _, ys, saved = out
            weights, inputs = args
            out = *out, recalled(spec, weights, inputs, ys, saved)
        return jax.tree.leaves(out)

    run: Any = one
    for axes in members:
        run = jax.vmap(run, axes)
    with jax.sharding.use_abstract_mesh(NO_MESH), as_written(spec):
        return run(*leaves)


def _chosen(platform: str, devices: Devices, spec: Spec, args: Any) -> Backend:
    asked = spec.implementation
    got = f"{asked!r} on a {platform}"
    for backend in backends_of(platform):
        if asked in (None, backend.name):
            limit = backend.why_not(devices, spec, *args)
            if limit is None:
                return backend
            got = limit
    check(False, "implementation", "None, 'scan' or 'loop' here", got)
    raise AssertionError


def gradients(
    platform: str, devices: Devices, spec: Spec, factors: Any, terms: Any, d: Array
) -> Any:
    """Gradients as those of `sums.py`, if there is a faster way than XLA's, or None."""
    if platform != "cpu":
        return None
    if (spec.implementation or backends_of(platform)[0].name) != NATIVE.name:
        return None
    from jaxseq._kernels.cpu import gradients

    if gradients.why_not(devices, factors, terms, d) is not None:
        return None
    return gradients.gradients(spec, factors, terms, d)


def register(primitive: Primitive, run: Any) -> None:
    """Lowers a primitive as `run(platform, devices, params, *leaves)`."""
    one = Devices(1, NO_MESH)
    primitive.def_impl(lambda *leaves, **params: run("default", one, params, *leaves))
    mlir.register_lowering(primitive, partial(_lower, run, "default"))
    for name in ("cpu", "tpu"):
        mlir.register_lowering(primitive, partial(_lower, run, name), platform=name)


register(run_p, _run)
