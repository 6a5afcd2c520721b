"""Arrays on several devices, and none of a mesh."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.core import ShapedArray
from jax.sharding import (
    AbstractMesh,
    AxisType,
    ManualAxisType,
    NamedSharding,
    PartitionSpec,
)

from jaxseq._base.mesh import has_axes

# what is traced on it can be run on any other, and on none
NO_MESH = AbstractMesh((), ())


def belongs_to_mesh(a: Any) -> bool:
    """Whether `a` has a layout that only the mesh where it was made gives a meaning."""
    if not isinstance(a, jax.Array):
        return False
    return bool(set(jax.typeof(a).sharding.mesh.axis_types) - {AxisType.Auto})


def like_batch(state: Any, x: Array) -> Any:
    """On an explicit mesh, `state` over the devices as the batch of `x` `(..., T, D)`.

    A loop's carry has to go in as it comes out.
    """
    if not has_axes(AxisType.Explicit):
        return state
    batch = tuple(jax.typeof(x).sharding.spec)[: x.ndim - 2]
    return jax.sharding.reshard(state, PartitionSpec(*batch))


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
