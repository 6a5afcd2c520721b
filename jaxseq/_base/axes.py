"""One axis of a mesh, over which a function lays its work."""

from typing import Any

import jax
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxseq._base.check import check, check_value


def check_mesh(mesh: Any, **axes: Any) -> Mesh | AbstractMesh:
    """A mesh, that of the context if None, with axes of these names; None is no axis.

    The axes are given by the names of the arguments that they came in.
    """
    ok = mesh is None or isinstance(mesh, (Mesh, AbstractMesh))
    check(ok, "mesh", "a mesh or None", type(mesh).__name__)
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    for name, axis in axes.items():
        known = f"an axis of the mesh, one of {mesh.axis_names}"
        ok = axis is None or (isinstance(axis, str) and axis in mesh.axis_names)
        check_value(ok, name, known if mesh.axis_names else "None without a mesh", axis)
    return mesh


def check_rows(x: Array, name: str, parts: int) -> None:
    """Checks that the first axis of `x` `(B, ..., T, D)` is a batch of equal parts."""
    ok = x.ndim > 2 and x.shape[0] % parts == 0
    check(ok, name, f"a batch that is a multiple of {parts}", x.shape)


def is_manual(axis: Any) -> bool:
    """Whether this is in a `shard_map` over that axis."""
    return axis in jax.sharding.get_abstract_mesh().manual_axes


def laid_out(tree: Any, specs: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Arrays in the layout that a `shard_map` over explicit axes insists on.

    Their other axes stay as they are.
    """
    if AxisType.Explicit not in mesh.axis_types:
        return tree

    def one(a: Array, spec: PartitionSpec) -> Array:
        own = tuple(jax.typeof(a).sharding.spec) or (None,) * a.ndim
        new = (*spec, *(None,) * (a.ndim - len(spec)))
        spec = PartitionSpec(*(n or o for n, o in zip(new, own, strict=True)))
        concrete = isinstance(mesh, Mesh)
        return jax.sharding.reshard(a, NamedSharding(mesh, spec) if concrete else spec)

    return jax.tree.map(one, tree, specs)


def on_all(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Arrays of which each device has all, and of their gradients too."""
    if AxisType.Explicit in mesh.axis_types:
        return tree
    spec = PartitionSpec()
    whole = NamedSharding(mesh, spec) if isinstance(mesh, Mesh) else spec
    return jax.lax.with_sharding_constraint(tree, whole)
