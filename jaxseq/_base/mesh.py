"""Arrays on several devices: on an explicit mesh, and in a `shard_map`."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec

from jaxseq._base.linear import mapped


def has_axes(kind: AxisType) -> bool:
    """Whether the mesh of the context has axes of this kind."""
    return kind in jax.sharding.get_abstract_mesh().axis_types


def varying(tree: Any) -> frozenset[Any]:
    """The axes of `shard_map` over which any of these varies."""
    tracers = [a for a in jax.tree.leaves(tree) if isinstance(a, jax.core.Tracer)]
    axes = (jax.typeof(a).manual_axis_type.varying for a in tracers)
    return frozenset().union(*axes)


def vary(tree: Any, axes: frozenset[Any]) -> Any:
    """These arrays, each of them varying over the axes, as a loop's carry has to."""

    def one(a: Array) -> Array:
        more = axes - jax.typeof(a).manual_axis_type.varying
        return lax.pcast(a, tuple(sorted(more)), to="varying") if more else a

    return jax.tree.map(one, tree) if axes else tree


def on_mesh_of_arguments(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` on the explicit mesh that its arguments lie on, where none has been set."""

    @wraps(f)
    def run(*args: Any, **options: Any) -> Any:
        if jax.sharding.get_abstract_mesh().empty:
            for a in jax.tree.leaves((args, options)):
                mesh = jax.typeof(a).sharding.mesh if isinstance(a, Array) else None
                if mesh is not None and AxisType.Explicit in mesh.axis_types:
                    with jax.sharding.use_abstract_mesh(mesh):
                        return f(*args, **options)
        return f(*args, **options)

    return run


def on_auto_axes(
    run: Callable[..., Any], x: Array, out: Callable[[PartitionSpec], Any]
) -> Callable[..., Any]:
    """`run`, on an explicit mesh with its axes automatic.

    `out` gives the layout of what is returned, from that of `x` before its features.
    """
    if not has_axes(AxisType.Explicit):
        return run
    spec = jax.typeof(x).sharding.spec
    lead = PartitionSpec(*tuple(spec)[: x.ndim - 1])
    return jax.sharding.auto_axes(run, out_sharding=out(lead))


def rows(table: Array, *at: Array) -> Array:
    """`table[at]`, laid out over the devices as `at`, and behind it as the table.

    NaN, without a gradient, where an index is not from 0 to the table's size less 1.
    """
    # a negative index would count from the end
    at = tuple(jnp.where(i < 0, n, i) for i, n in zip(at, table.shape, strict=False))
    spec = None
    if has_axes(AxisType.Explicit):
        spec = tuple(jax.typeof(table).sharding.spec)[len(at) :]
        spec = PartitionSpec(*jax.typeof(at[0]).sharding.spec, *spec)

    def get(*args: Array) -> Array:
        *at, table = args
        return table.at[tuple(at)].get(mode="fill", out_sharding=spec)

    return mapped(get, table, *at)


def of_each_row(weights: Array, rows: Array) -> Array:
    """Weights `(...)` as `(B, ...)` for rows `(B, F)`, where these are on many devices.

    In a loop their gradients are then summed by row. Else each step would wait for
    the sum over all devices.
    """
    if jax.typeof(rows).sharding.mesh.size < 2:
        return weights
    zero = jnp.zeros_like(rows[..., 0])
    return weights + zero.reshape(*zero.shape, *[1] * weights.ndim)


def as_one_batch(tree: Any, axes: int = 1) -> Any:
    """Arrays with the same batch in front, all laid out by it as one of them is."""
    if not has_axes(AxisType.Explicit):
        return tree
    spec = lambda a: tuple(jax.typeof(a).sharding.spec)
    some = [spec(a)[:axes] for a in jax.tree.leaves(tree) if any(spec(a)[:axes])]
    if not some:
        return tree
    lead = some[0]
    one = lambda a: jax.sharding.reshard(a, PartitionSpec(*lead, *spec(a)[axes:]))
    return jax.tree.map(one, tree)


def scan(
    body: Callable[..., Any], carry: Any, over: Any, reverse: bool = False
) -> tuple[Any, Any]:
    """`lax.scan`, whose carry is laid out as it comes out before it goes in."""
    first = lambda carry, over: body(carry, jax.tree.map(lambda a: a[0], over))[0]
    if jax.tree.leaves(over)[0].shape[0] != 0:
        carry = as_it_comes_out(first, carry, over)
    return lax.scan(body, carry, over, reverse=reverse)


def while_loop(
    goes_on: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any
) -> Any:
    """`lax.while_loop`, whose carry is laid out as it comes out before it goes in."""
    return lax.while_loop(goes_on, body, as_it_comes_out(body, carry))


def as_it_comes_out(body: Callable[..., Any], carry: Any, *args: Any) -> Any:
    """A carry laid out as `body` gives it back."""
    if not has_axes(AxisType.Explicit) and not has_axes(AxisType.Manual):
        return carry

    def one(a: Any, like: Any) -> Array:
        a = jnp.asarray(a)
        if has_axes(AxisType.Manual) and like.manual_axis_type is not None:
            a = vary(a, like.manual_axis_type.varying)  # None with check_vma=False
        if has_axes(AxisType.Explicit) and like.sharding is not None:
            a = jax.sharding.reshard(a, like.sharding.spec)
        return a

    while True:  # what comes out may depend on more once more goes in
        before = list(map(jax.typeof, jax.tree.leaves(carry)))
        carry = jax.tree.map(one, carry, jax.eval_shape(body, carry, *args))
        if list(map(jax.typeof, jax.tree.leaves(carry))) == before:
            return carry
