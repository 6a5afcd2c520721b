"""How a primitive is lowered: once for each platform, for the devices it is for.

Nothing is traced for other platforms.
"""

from functools import partial
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.types import Devices


def register(primitive: Primitive, run: Any) -> None:
    """Lowers a primitive as `run(platform, devices, params, *leaves)`."""
    one = Devices(1, NO_MESH)
    primitive.def_impl(lambda *leaves, **params: run("default", one, params, *leaves))
    mlir.register_lowering(primitive, partial(_lower, run, "default"))
    for name in ("cpu", "tpu"):
        mlir.register_lowering(primitive, partial(_lower, run, name), platform=name)


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
