"""What one device does of a wavefront: its layers, on one chunk of time a tick."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.mesh import vary
from jaxseq._compose.layers import Layer


class Plan(NamedTuple):
    layer: Layer
    parts: int  # devices
    chunk: int
    axis: str
    batch_axis: str | None
    features: int  # that a layer gives
    gathers: bool  # whether each device has all final states


class Timed(NamedTuple):
    """In the order in which it is read."""

    x: Array  # (..., T, W)
    lengths: Array | None  # (...)
    mask: Array | None  # (..., T)
    resets: Array | None  # (..., T)


def run_ticks(plan: Plan, params: Any, state: Any, given: Timed) -> tuple[Any, Array]:
    """The final states of this device's layers, and the outputs of the last device's.

    At tick t the device number p reads chunk t - p; without one it does nothing.
    """
    axis, K = plan.axis, plan.chunk
    axes = frozenset({axis, plan.batch_axis} - {None})
    # from here on, so that what goes back is summed over devices once, after the loop
    params, state, given = vary((params, state, given), axes)
    here, own = lax.axis_index(axis), jax.tree.leaves(params)[0].shape[0]
    T, chunks = given.x.shape[-2], -(-given.x.shape[-2] // K)
    given = _in_whole_chunks(given, chunks * K - T)
    layers = [jax.tree.map(lambda a, i=i: a[i], params) for i in range(own)]
    if state is None:  # before the first step
        none = given.x[..., :0, :]
        first = [plan.layer(p, none, None)[0] for p in layers]
    else:
        first = [jax.tree.map(lambda a, i=i: a[i], state) for i in range(own)]
    wide = [(0, 0)] * (given.x.ndim - 1) + [(0, given.x.shape[-1] - plan.features)]

    def read(states: Any, y: Array, at: Array) -> Any:
        x, options = _chunk(given, at, K)
        y, ends = jnp.where(here == 0, x, y), []
        for p, state in zip(layers, states, strict=True):
            end, y = plan.layer(p, y, state, **options)
            y = jnp.pad(y, wide)
            ends.append(end)
        return vary((ends, y), axes)

    def idle(states: Any, y: Array, at: Array) -> Any:
        return states, vary(jnp.zeros_like(y), axes)

    def tick(carry: Any, t: Array) -> Any:
        at = t - here
        on = (at >= 0) & (at < chunks)
        at = jnp.clip(at, 0, max(chunks - 1, 0))
        states, y = lax.cond(on, read, idle, *carry, at)
        above = [(i, i + 1) for i in range(plan.parts - 1)]
        return (states, lax.ppermute(y, axis, above)), y

    nothing = jnp.zeros_like(_chunk(given, here, K)[0])
    ticks = jnp.arange(chunks + plan.parts - 1, dtype=jnp.int32)
    carry = vary((first, nothing), axes)
    (states, _), y = lax.scan(tick, carry, ticks)
    y = jnp.moveaxis(y[plan.parts - 1 :], 0, -3)[..., : plan.features]
    y = y.reshape(*y.shape[:-3], chunks * K, plan.features)
    y = lax.psum(jnp.where(here == plan.parts - 1, y, jnp.zeros_like(y)), axis)
    end = jax.tree.map(lambda *a: jnp.stack(a), *states)
    if plan.gathers:
        end = lax.all_gather(end, axis, tiled=True, to="invarying")
    return end, y


def _in_whole_chunks(given: Timed, more: int) -> Timed:
    """With steps behind the last one that are not valid."""
    if more == 0:
        return given
    x, lengths, mask, resets = given
    after = lambda a, axes: jnp.pad(
        a, [(0, 0)] * (a.ndim - axes) + [(0, more)] + [(0, 0)] * (axes - 1)
    )
    flags = lambda a: None if a is None else after(a, 1)
    if lengths is None and mask is None:
        lengths = jnp.full_like(x, x.shape[-2], jnp.int32, shape=x.shape[:-2])
    return Timed(after(x, 2), lengths, flags(mask), flags(resets))


def _chunk(given: Timed, at: Array, K: int) -> tuple[Array, dict[str, Array]]:
    """The inputs of one chunk, and the options of a layer for it."""
    part = lambda a, axis: lax.dynamic_slice_in_dim(a, at * K, K, axis)
    x, lengths, mask, resets = given
    options = {}
    if lengths is not None:
        options["lengths"] = jnp.clip(lengths - at * K, 0, K)
    if mask is not None:
        options["mask"] = part(mask, mask.ndim - 1)
    if resets is not None:
        options["resets"] = part(resets, resets.ndim - 1)
    return part(x, x.ndim - 2), options
