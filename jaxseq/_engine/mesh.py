"""Arrays on several devices, and none of a mesh."""

from typing import Any

import jax
from jax import Array
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

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
