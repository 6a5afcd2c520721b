"""Linear recurrences, with time split over devices if need be."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.export import is_symbolic_dim
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import ArrayLike

from jaxseq._base.axes import (
    check_batch_axis,
    check_known,
    check_mesh,
    check_rows,
    is_manual,
    laid_out,
)
from jaxseq._base.check import (
    as_array,
    check,
    check_array,
    check_flag,
    check_lengths,
)
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.masks import valid_steps
from jaxseq._base.mesh import scan, vary, varying


def linear_scan(
    a: ArrayLike,
    b: ArrayLike,
    state: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reverse: bool = False,
    axis: str | None = None,
    batch_axis: str | None = None,
    mesh: Mesh | AbstractMesh | None = None,
) -> tuple[Array, Array]:
    """Runs h_t = a_t * h_{t-1} + b_t over time, which can be split over devices.

    It is the recurrence of cells whose gates depend on the input only, and not on the
    state: QRNN, minGRU, RG-LRU, diagonal state spaces. Compute `a` and `b` for all
    steps first, and what depends on the states afterwards.

    Args:
        a: factors, `(..., T, H)`, usually with an absolute value of at most 1. Where a
            factor is 0, the state starts afresh, as at a reset.
        b: the terms that are added, `(..., T, H)`, in the dtype of `a`.
        state: the state before the first step, `(..., H)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None. Past
            them the state stands still and `y` is zero.
        mask: booleans `(..., T)`, which steps are valid; the run is as if the others
            were not there.
        reverse: whether to run from the last valid step to the first.
        axis: the mesh axis that time lies over, in equal parts; None for one device.
            Inside a `shard_map` over this axis, `a`, `b` and `mask` are this device's
            part of the time, while `lengths` count the steps on all devices.
        batch_axis: the mesh axis that the batch, the first axis of `a`, lies over; None
            if there is none. Only with `axis`, and not inside a `shard_map` over it.
        mesh: the mesh; if None, that of the context (`jax.set_mesh`).

    Returns:
        `(state, y)`: the state after the last step, `(..., H)`, and the state after
        each step, `(..., T, H)`, in the dtype of `a`. For 16-bit dtypes, `state` is
        float32, and so is the arithmetic.

    Raises:
        ValueError: if a shape or dtype does not fit, the mesh has no such axis, T or
            the batch is not a multiple of its size, or a size is symbolic with `axis`.

    Each device scans its own steps from a state of zeros. Then one all-gather of the
    product of `a` and of the last state of each device, `(devices, 2, ..., H)` whatever
    T is, gives each device the state before its first step. Running time in parallel is
    from Martin and Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence
    Length", 2018, https://arxiv.org/abs/1709.04057. On CPU a device loops over its
    steps; on other platforms it runs the scan of Blelloch, "Prefix Sums and Their
    Applications", 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf.

    Example:
        >>> a, b = jnp.full((5, 20, 3), 0.5), jnp.ones((5, 20, 3))
        >>> state, y = jaxseq.linear_scan(a, b)
        >>> y.shape, y[0, :3, 0].tolist()
        ((5, 20, 3), [1.0, 1.5, 1.75])

        With time split over all devices:

        >>> mesh = jax.make_mesh((jax.device_count(),), ("time",))
        >>> with jax.set_mesh(mesh):
        ...     over_all = jaxseq.linear_scan(a, b, axis="time")
        >>> bool(jnp.allclose(over_all[0], state)), over_all[1].shape
        (True, (5, 20, 3))
    """
    a, b = as_array(a, "a"), as_array(b, "b")
    check(a.ndim >= 2, "a", "shape (..., T, H)", a.shape)
    check(jnp.issubdtype(a.dtype, jnp.inexact), "a", "a float dtype", a.dtype)
    check_array(b, "b", a.shape, a.dtype)
    *batch, T, H = a.shape
    wide = state_dtype(a.dtype) if jnp.isrealobj(a) else a.dtype
    if state is None:
        state = jnp.zeros((*batch, H), wide)
    state = as_array(state, "state")
    check_array(state, "state", (*batch, H), wide)
    reverse = check_flag(reverse, "reverse")
    here = is_manual(axis)
    mesh = check_mesh(mesh, axis=axis, batch_axis=batch_axis)
    check_batch_axis(batch_axis, axis)
    if batch_axis is not None:
        expected = "None in a shard_map over axis"
        check(not here, "batch_axis", expected, batch_axis)
        check_rows(a, "a", mesh.shape[batch_axis])
    if axis is not None:
        check_known(a, "a")
    parts = 1 if axis is None else mesh.shape[axis]
    ok = here or T % parts == 0
    check(ok, "a", f"T a multiple of {parts}, the number of devices", T)
    if T == 0:  # nothing to split
        axis, here = None, False
    valid = _valid(lengths, mask, tuple(batch), T, axis if here else None, parts)
    by_time = [jnp.moveaxis(v.astype(wide), -2, 0) for v in (a, b)]
    if valid is not None:
        valid = jnp.moveaxis(valid, -1, 0)[..., None]
        by_time = [jnp.where(valid, v, w) for v, w in zip(by_time, (1, 0), strict=True)]
    args: Any = *by_time, state
    run: Any = partial(_run, axis=axis, reverse=reverse)
    if axis is not None and not here:
        rows = () if batch_axis is None else (batch_axis,)
        over, whole = PartitionSpec(axis, *rows), PartitionSpec(*rows)
        specs = over, over, whole
        args = laid_out(args, specs, mesh)
        outs = {"out_specs": (whole, over), "axis_names": {axis, *rows}}
        run = jax.shard_map(run, mesh=mesh, in_specs=specs, **outs)
    end, y = run(*args)
    y = y if valid is None else jnp.where(valid, y, 0)
    return end, jnp.moveaxis(y, 0, -2).astype(a.dtype)


def _valid(
    lengths: Any, mask: Any, batch: tuple[int, ...], T: int, axis: Any, parts: int
) -> Array | None:
    """Which of this device's T steps are valid, by the `lengths` over all devices."""
    if axis is None or lengths is None:
        return valid_steps(lengths, mask, batch, T)
    ends = check_lengths(lengths, batch, T * parts)
    ends = jnp.clip(ends - T * lax.axis_index(axis), 0, T)
    return valid_steps(ends, mask, batch, T)


def _run(
    a: Array, b: Array, first: Array, axis: str | None, reverse: bool
) -> tuple[Array, Array]:
    """The last state of all, and those of this device's steps, `(T, ...)`."""
    if axis is None:
        return _after(a, b, first, reverse)[1:]
    a, b = vary((a, b), frozenset([axis]))
    product, last, y = _after(a, b, jnp.zeros_like(first), reverse, products=True)
    ends = _gather(jnp.stack([product[0 if reverse else -1], last]), axis)
    _, end, states = _after(ends[:, 0], ends[:, 1], first, reverse)
    others = [first[None], states[:-1]] if not reverse else [states[1:], first[None]]
    before = jnp.concatenate(others)[lax.axis_index(axis)]
    return end, y + product * before


def _after(
    a: Array, b: Array, first: Array, reverse: bool, products: bool = False
) -> tuple[Any, Array, Array]:
    """The products of `a` up to each step if asked for, the last state, and all."""

    def loop(a: Array, b: Array, first: Array) -> Any:
        def body(carry: Any, now: Any) -> Any:
            (product, h), (a, b) = carry, now
            h = a * h + b
            product = a * product if products else None
            return (product, h), (product, h)

        one = jnp.ones_like(first) if products else None
        (_, end), (product, y) = scan(body, (one, first), (a, b), reverse=reverse)
        return product, end, y

    def tree(a: Array, b: Array, first: Array) -> Any:
        product, y = lax.associative_scan(_joined, (a, b), reverse=reverse)
        y = y + product * first
        return product if products else None, y[0 if reverse else -1], y

    T = a.shape[0]
    if is_symbolic_dim(T) or T == 0:  # which associative_scan does not take
        return loop(a, b, first)
    return lax.platform_dependent(a, b, first, cpu=loop, default=tree)


def _joined(left: Any, right: Any) -> Any:
    """Two adjacent pieces of time as one: the product of `a`, and the last state."""
    return left[0] * right[0], right[0] * left[1] + right[1]


def _gather(a: Array, axis: str) -> Array:
    """The arrays of all devices, in a new first axis.

    The backward pass has no reduce-scatter: between CPU processes it fails if one of
    them is 30 seconds late.
    """
    if axis in varying(a):
        return lax.all_gather(a, axis, to="invarying")
    # with check_vma=False, each device has a cotangent of its own for all of them
    copies = jnp.broadcast_to(a, (lax.axis_size(axis), *a.shape))
    return lax.all_to_all(copies, axis, 0, 0)
