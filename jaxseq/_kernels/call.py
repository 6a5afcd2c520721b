"""Calls of a kernel under `vmap` and on several devices, the same for all kernels.

What a kernel is given has M members in front, each with weights of its own: `vmap`
adds to the rows, or to M if it maps the weights.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jaxseq._engine.types import Devices

INTERPRET: Any = False  # whether kernels run where there is no chip, for tests


class Operands(NamedTuple):
    """What a kernel over time is given: trees of arrays."""

    weights: Any  # (I, J)
    rows: Any  # (B, W), the same in all steps
    carry: Any  # (B, W), from step to step
    x: Any  # (T, B, W)


Kernel = Callable[[Operands], tuple[Any, Any]]  # carry (M, B, W), y (M, T, B, W)


def call(kernel: Kernel, devices: Devices, operands: Operands) -> tuple[Any, Any]:
    """The carry and y of one member."""
    run = lambda operands: _shared(kernel, devices, operands)
    out = _fold(run, jax.tree.map(lambda a: a[None], operands))
    return jax.tree.map(lambda a: a[0], out)


def _fold(run: Kernel, operands: Operands) -> tuple[Any, Any]:
    """`run(operands)`; an axis of `vmap` goes into its members or its rows."""
    one = custom_vmap(run)

    @one.def_vmap
    def _(N: int, mapped: Any, operands: Operands) -> tuple[Any, Any]:
        (mapped,) = mapped
        members = any(jax.tree.leaves(mapped.weights))

        def fold(a: Array, is_mapped: bool) -> Array:
            a = a if is_mapped else jnp.broadcast_to(a, (N, *a.shape))
            if members:
                return a.reshape(N * a.shape[1], *a.shape[2:])
            # as the minor part of the rows: if these are sharded, they stay
            a = jnp.moveaxis(a, 0, -2)
            return a.reshape(*a.shape[:-3], a.shape[-3] * N, a.shape[-1])

        def unfold(a: Array) -> Array:
            if members:
                return a.reshape(N, a.shape[0] // N, *a.shape[1:])
            a = a.reshape(*a.shape[:-2], a.shape[-2] // N, N, a.shape[-1])
            return jnp.moveaxis(a, -2, 0)

        folded = jax.tree.map(fold, operands, mapped)
        if not members:
            folded = folded._replace(weights=operands.weights)
        out = jax.tree.map(unfold, _fold(run, folded))
        return out, jax.tree.map(lambda _: True, out)

    return one(operands)


def mesh_of(devices: Devices) -> tuple[Any, list[Any]]:
    """A mesh of the devices, and its axes over which a kernel has to be split."""
    mesh = devices.mesh
    if mesh.empty and devices.number is not None:
        mesh = AbstractMesh((devices.number,), ("devices",))
    axes = zip(mesh.axis_names, mesh.axis_types, strict=True)
    names = [name for name, kind in axes if kind != AxisType.Manual]
    return mesh, [] if devices.number == 1 else names


def _shared(kernel: Kernel, devices: Devices, operands: Operands) -> tuple[Any, Any]:
    """`kernel`, the members or rows split over as many devices as divide them.

    XLA does not split a kernel, and `custom_partitioning` does not reach its TPU
    compiler.
    """
    mesh, names = mesh_of(devices)
    if not names:
        return kernel(operands)
    M, B, _ = jax.tree.leaves(operands.carry)[0].shape
    if M % prod(mesh.shape[name] for name in names) == 0:
        whole = row = step = PartitionSpec(tuple(names))
    else:
        some, n = [], 1
        for name in names:
            if B % (n * mesh.shape[name]) == 0:
                some, n = [*some, name], n * mesh.shape[name]
        whole = PartitionSpec()
        row, step = (
            PartitionSpec(None, tuple(some)),
            PartitionSpec(None, None, tuple(some)),
        )
    return jax.shard_map(
        kernel,
        mesh=mesh,
        in_specs=(Operands(whole, row, row, step),),
        out_specs=(row, step),
        axis_names=set(names),
        check_vma=False,
    )(operands)
