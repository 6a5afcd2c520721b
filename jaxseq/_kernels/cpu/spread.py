"""A call of the kernels under `vmap`, and on several devices.

An axis of `vmap` that maps weights is one of members, in front of those arrays that
differ between them. Over devices the members or the rows are split.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec

from jaxseq._engine.types import Devices
from jaxseq._kernels.call import mesh_of
from jaxseq._kernels.cpu import build


class Call(NamedTuple):
    """All that a call needs beside its arguments."""

    devices: Devices
    rows: list[int | None]  # the axis of rows of each argument, None of weights
    results: list[tuple[int, jax.ShapeDtypeStruct]]  # with their axis of rows
    over: list[tuple[int, int]]  # an argument, and the result that may take its place


# Makes one call of arguments, of which those that are `own` have members in front. All
# its results have.
Run = Callable[[list[bool], list[Array]], list[Array]]


def call(about: Call, args: list[Array]) -> list[Array]:
    return with_members(partial(_split, about), args)


def with_members(run: Run, args: list[Array]) -> list[Array]:
    """`run` without members; `vmap` makes more of them, in the same call."""
    return _folded(run, [False] * len(args), args)


def _folded(run: Run, own: list[bool], args: list[Array]) -> list[Array]:
    one = custom_vmap(lambda *args: run(own, list(args)))

    @one.def_vmap
    def _(N: int, mapped: list[bool], *args: Array) -> Any:
        M = _members(own, args, mapped)
        out = _folded(
            run,
            [a or b for a, b in zip(own, mapped, strict=True)],
            [_of_all(M, N, *each) for each in zip(own, mapped, args, strict=True)],
        )
        if M is not None:
            out = [a.reshape(N, M, *a.shape[1:]) for a in out]
        return out, [True] * len(out)

    return one(*args)


def said_of(own: list[bool], args: list[Array]) -> dict[str, Any]:
    """What a call is told of its members."""
    M = _members(own, args)
    return {
        "members": -1 if M is None else M,
        "own": "".join("01"[yes] for yes in own),
    }


def _of_all(M: int | None, N: int, own: bool, mapped: bool, a: Array) -> Array:
    """An argument of N times M members, if it differs between any of them."""
    if M is None or not (own or mapped):
        return a
    if not mapped:
        a = jnp.broadcast_to(a, (N, *a.shape))
    elif not own:
        a = jnp.broadcast_to(a[:, None], (N, M, *a.shape[1:]))
    return a.reshape(N * M, *a.shape[2:])


def _members(own: list[bool], args: Any, mapped: Any = None) -> int | None:
    """How many there are, of arguments behind an axis of `vmap` where it is mapped."""
    each = zip(own, mapped or [False] * len(own), args, strict=True)
    return next((a.shape[int(behind)] for yes, behind, a in each if yes), None)


def limit(devices: Devices, rows: int) -> str | None:
    """Why a batch cannot be split over devices, or None."""
    mesh, names = mesh_of(devices)
    sizes = [mesh.shape[name] for name in names if mesh.shape[name] > 1]
    if len(sizes) > 1:
        return "the mesh has several axes"
    if rows % prod(sizes):
        return f"{rows} rows are not split over {sizes[0]} devices"
    return None


def _split(about: Call, own: list[bool], args: list[Array]) -> list[Array]:
    mesh, names = mesh_of(about.devices)
    if not names:
        return _run(about, own, args)
    M = _members(own, args)
    by_members = M is not None and M % prod(mesh.shape[name] for name in names) == 0

    def spec(own: bool, rows: int | None) -> PartitionSpec:
        if by_members:
            return PartitionSpec(tuple(names)) if own else PartitionSpec()
        if rows is None:
            return PartitionSpec()
        return PartitionSpec(*[None] * (own + rows), tuple(names))

    return jax.shard_map(
        lambda *args: _run(about, own, list(args)),
        mesh=mesh,
        in_specs=tuple(map(spec, own, about.rows)),
        out_specs=[spec(M is not None, rows) for rows, _ in about.results],
        axis_names=set(names),
        check_vma=False,
    )(*args)


def _run(about: Call, own: list[bool], args: list[Array]) -> list[Array]:
    M, lead = _members(own, args), []
    options, name = {}, build.TARGET
    if M is not None:
        options, lead, name = said_of(own, args), [M], build.MEMBERS
    parts = zip(about.rows, own, args, strict=True)
    B = next(a.shape[yes + rows] for rows, yes, a in parts if rows is not None)

    def result(rows: int, a: Any) -> Any:
        own = a.shape[:rows], (B,), a.shape[rows + 1 :]
        return jax.ShapeDtypeStruct((*lead, *sum(own, ())), a.dtype)

    results = [result(*each) for each in about.results]
    over = {i: j for i, j in about.over if args[i].shape == results[j].shape}
    run = jax.ffi.ffi_call(name, results, input_output_aliases=over)
    return list(run(*args, **options))
