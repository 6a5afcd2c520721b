"""Functions that lie over an axis of a mesh: their arguments, and their layout."""

from typing import Any

import jax
from jax import Array
from jax.export import is_symbolic_dim
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxseq._base.check import check, check_value


def check_mesh(mesh: Any, **axes: Any) -> Mesh | AbstractMesh:
    """Returns the mesh, that of the context if None, and checks that it has these axes.

    Each axis, which may be None, is given under the name of its argument.
    """
    ok = mesh is None or isinstance(mesh, (Mesh, AbstractMesh))
    check(ok, "mesh", "a mesh or None", type(mesh).__name__)
    context = jax.sharding.get_abstract_mesh()
    if mesh is not None and not context.empty:
        ok = dict(mesh.shape) == dict(context.shape)
        check(ok, "mesh", f"that of the context, {dict(context.shape)}", mesh)
    mesh = context if mesh is None or not context.empty else mesh
    for name, axis in axes.items():
        known = f"an axis of the mesh, one of {mesh.axis_names}"
        ok = axis is None or (isinstance(axis, str) and axis in mesh.axis_names)
        check_value(ok, name, known if mesh.axis_names else "None without a mesh", axis)
    return mesh


def check_batch_axis(batch_axis: Any, axis: Any) -> None:
    """Checks an axis of the batch, which comes with an axis of something else."""
    if batch_axis is not None:
        check(axis is not None, "batch_axis", "None where axis is None", batch_axis)
        expected = "an axis other than axis, with no shard_map over it"
        ok = batch_axis != axis and not is_manual(batch_axis)
        check(ok, "batch_axis", expected, batch_axis)


def check_known(x: Array, name: str) -> None:
    """Checks that no size is symbolic, with which JAX cannot lower collectives."""
    ok = not any(map(is_symbolic_dim, x.shape))
    check(ok, name, "known sizes where axis is given", x.shape)


def check_rows(x: Array, name: str, parts: int) -> None:
    """Checks that the batch of `x` `(B, ..., T, D)` can be cut into equal parts."""
    ok = x.ndim > 2 and x.shape[0] % parts == 0
    check(ok, name, f"a batch, its first axis, that is a multiple of {parts}", x.shape)


def is_manual(axis: Any) -> bool:
    """Whether this is inside a `shard_map` over that axis."""
    return axis in jax.sharding.get_abstract_mesh().manual_axes


def laid_out(tree: Any, specs: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Arrays laid out by these specs, as a `shard_map` over explicit axes requires.

    Axes of arrays for which a spec has None keep their layout.
    """
    if AxisType.Explicit not in mesh.axis_types:
        return tree

    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))

    def one(a: Array, spec: PartitionSpec) -> Array:
        own = tuple(jax.typeof(a).sharding.spec) or (None,) * a.ndim
        new = [n if kinds.get(n) == AxisType.Explicit else None for n in spec]
        new += [None] * (a.ndim - len(new))
        spec = PartitionSpec(*(n or o for n, o in zip(new, own, strict=True)))
        concrete = isinstance(mesh, Mesh)
        return jax.sharding.reshard(a, NamedSharding(mesh, spec) if concrete else spec)

    return jax.tree.map(one, tree, specs)


def on_all(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Arrays replicated on all devices, and with them their gradients."""
    if AxisType.Explicit in mesh.axis_types:
        return tree
    spec = PartitionSpec()
    whole = NamedSharding(mesh, spec) if isinstance(mesh, Mesh) else spec
    return jax.lax.with_sharding_constraint(tree, whole)
