"""Bodies of arrays on a mesh: traced there, and freed of it.

On an explicit mesh and in a `shard_map` the types of values say where they lie, and
some equations say where they go. None of these changes a value. Without them the same
equations run on any mesh, and on none.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxprs_in_params
from jax.sharding import (
    AbstractMesh,
    AxisType,
    ManualAxisType,
    NamedSharding,
    PartitionSpec,
    get_abstract_mesh,
    use_abstract_mesh,
)

from jaxseq._base.mesh import vary, varying
from jaxseq._engine.chain import needed
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.step import Step, step_from
from jaxseq._scan.custom import CUSTOM, NotFree, with_own_derivative
from jaxseq._scan.program import (
    CALLS,
    Program,
    as_written,
    program_of,
    results,
    traced_again,
    within,
)

# they say where a value lies, and give it as it is
PLACES = frozenset({"pvary", "reshard", "mesh_cast", "sharding_constraint"})
# they are lowered in another way on each mesh
BOUND = frozenset({"shard_map", "pure_callback"})
OWN = {AxisType.Explicit, AxisType.Manual}


class Layout(NamedTuple):
    """How the arrays of a scan lie on a mesh."""

    mesh: AbstractMesh
    axes: frozenset[Any]  # of `shard_map`, over which they vary
    outs: tuple[PartitionSpec, ...]  # of the state and of y_t
    alike: tuple[int, ...]  # those of these that do not vary over all of the axes


NO_LAYOUT = Layout(NO_MESH, frozenset(), (), ())


def mesh_of(arrays: Sequence[Any]) -> AbstractMesh | None:
    """The mesh, of the context or of these arrays, whose axes are in their types."""
    meshes = [jax.typeof(a).sharding.mesh for a in arrays]
    return next((m for m in (get_abstract_mesh(), *meshes) if _is_own(m)), None)


def _is_own(mesh: AbstractMesh) -> bool:
    return bool(OWN & set(mesh.axis_types))


def of_one_step(a: Any) -> Any:
    """The type of one step of `a`, whose time is in front."""
    kind: Any = jax.typeof(a)
    spec = PartitionSpec(*tuple(kind.sharding.spec)[1:])
    return ShapedArray(
        kind.shape[1:],
        kind.dtype,
        sharding=NamedSharding(kind.sharding.mesh, spec),
        manual_axis_type=kind.manual_axis_type,
    )


def layout_of(
    program: Program, mesh: AbstractMesh, state: Any, xs: Any, consts: Any
) -> Layout | str:
    """The layout of what a body gives, or why the body is left to `lax.scan`."""
    over_time = [jax.typeof(a).sharding.spec for a in xs]
    if any(tuple(spec)[:1] != (None,) for spec in over_time):
        return "the steps lie on several devices"
    kinds: Any = [jax.typeof(a) for a in (*state, *xs, *consts)]
    axes = frozenset().union(*(a.manual_axis_type.varying for a in kinds))
    outs: list[Any] = [v.aval for v in program.outs]
    alike = [i for i, a in enumerate(outs) if a.manual_axis_type.varying != axes]
    same = needed(program.eqns, [program.outs[i] for i in alike])
    values: Any = [v for e in same for v in (*e.invars, *e.outvars)]
    if _has_product(same) or axes in (v.aval.manual_axis_type.varying for v in values):
        return "a product is the same on several devices"
    return Layout(mesh, axes, tuple(a.sharding.spec for a in outs), tuple(alike))


def _has_product(eqns: Any) -> bool:
    inner = lambda e: (e for jaxpr in jaxprs_in_params(e.params) for e in jaxpr.eqns)
    names = ("dot_general" == e.primitive.name or _has_product(inner(e)) for e in eqns)
    return any(names)


def freed(program: Program) -> Program:
    """The same program on no mesh."""
    with use_abstract_mesh(NO_MESH):
        free = traced_again(lambda *args: results(program, args, here), program)
    atoms: Any = [v for e in free.eqns for v in (*e.invars, *e.outvars)]
    if any(_is_own(v.aval.sharding.mesh) for v in atoms):
        raise NotFree("an equation of it belongs to the mesh")
    return free


def here(e: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation of any mesh, on the mesh of the context."""
    name = e.primitive.name
    typed = zip(values, (*e.invars,), strict=True)
    values = [a if isinstance(a, Array) else _literal(a, v) for a, v in typed]
    if name in PLACES:
        return values
    if name in CALLS:
        return within(e, values, here)
    axes = varying(values)
    values = vary(values, axes)
    if name in CUSTOM:
        return with_own_derivative(e, here)(*values)
    if name in BOUND:
        raise NotFree(f"it has a {name}")
    params = dict(e.params)
    if any(True for _ in jaxprs_in_params(params)):
        again = lambda a: _again(a, axes) if isinstance(a, Jaxpr | ClosedJaxpr) else a
        params = {k: jax.tree.map(again, a) for k, a in params.items()}
    for k in {"sharding", "out_sharding"} & set(params):
        params[k] = None
    mesh = get_abstract_mesh()
    with as_written(e), use_abstract_mesh(mesh):
        out = e.primitive.bind(*values, **e.primitive.get_bind_params(params))
    return out if e.primitive.multiple_results else [out]


def _literal(a: Any, v: Any) -> Array:
    return jnp.asarray(a, v.aval.dtype)


def _again(jaxpr: Any, axes: frozenset[Any]) -> Any:
    """A jaxpr in an equation, for values of the context's mesh that vary over axes."""
    inner: Any = getattr(jaxpr, "jaxpr", jaxpr)
    if any(type(v.aval) is not ShapedArray for v in inner.invars):
        raise NotFree("it has references")
    consts = list(getattr(jaxpr, "consts", ()))
    program = program_of(inner)
    run = lambda *args: vary(results(program, [*consts, *args], here), axes)
    closed = jax.make_jaxpr(run)(*(typed(v.aval, axes) for v in inner.invars))
    if closed.consts:
        raise NotFree("a part of it holds arrays")
    return closed if isinstance(jaxpr, ClosedJaxpr) else closed.jaxpr


def typed(a: Any, axes: frozenset[Any]) -> Any:
    """A type like that of `a`, on the context's mesh, that varies over axes."""
    if not axes:
        return jax.ShapeDtypeStruct(a.shape, a.dtype)
    whole = NamedSharding(get_abstract_mesh(), PartitionSpec(*[None] * len(a.shape)))
    kind = ManualAxisType(varying=axes)
    return ShapedArray(a.shape, a.dtype, sharding=whole, manual_axis_type=kind)


def varied(step: Step, axes: frozenset[Any]) -> Step:
    """The same step, of arrays that all vary over the axes of `shard_map`."""
    program = program_of(step.jaxpr)
    again: Callable[..., Any] = lambda *args: vary(results(program, args, here), axes)
    closed = jax.make_jaxpr(again)(*(typed(v.aval, axes) for v in step.jaxpr.invars))
    parts = step.z_x, step.state, step.extra
    names = "name", "tree", "widths", "sizes", "precisions", "map_precisions"
    same = {k: getattr(step, k) for k in names}
    return step_from(closed.jaxpr, *parts, **same)
