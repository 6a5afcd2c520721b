"""One device's part in a wavefront: at each tick, its layers on one chunk of time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.dtypes import widened
from jaxseq._base.mesh import vary
from jaxseq._compose.layers import Layer


class Plan(NamedTuple):
    layer: Layer
    parts: int  # how many devices the layers lie over
    chunk: int
    axis: str
    batch_axis: str | None
    features: int  # the width of a layer's outputs
    gathers: bool  # whether each device gets the final states of all layers


class Timed(NamedTuple):
    """Inputs and masks, with the steps in the order in which they are read."""

    x: Array  # (..., T, W)
    lengths: Any  # (...), or None
    mask: Array | None  # (..., T)
    resets: Array | None  # (..., T)


def run_ticks(plan: Plan, params: Any, state: Any, given: Timed) -> tuple[Any, Array]:
    """The final states of this device's layers, and the outputs of the last layer.

    At tick t, device p runs its layers on chunk t - p. Where there is no such chunk, it
    runs them on one without a valid step, and does not skip them: a layer may contain
    collectives, if only in its gradient, and in these all devices have to take part.
    """
    axis, K = plan.axis, plan.chunk
    axes = frozenset({axis, plan.batch_axis} - {None})
    # outside of the loop, so that gradients are summed over devices once, after it
    params, (state, given) = _with_wide_sums(params, axes), vary((state, given), axes)
    here, own = lax.axis_index(axis), jax.tree.leaves(params)[0].shape[0]
    chunks = _chunks(given.x.shape[-2], K)
    given = _padded(given, chunks * K)
    layers = [jax.tree.map(lambda a, i=i: a[i], params) for i in range(own)]
    if state is None:  # a run of no steps returns the state that it begins at
        none = given.x[..., :0, :]
        first = [plan.layer(p, none, None)[0] for p in layers]
    else:
        first = [jax.tree.map(lambda a, i=i: a[i], state) for i in range(own)]
    wide = [(0, 0)] * (given.x.ndim - 1) + [(0, given.x.shape[-1] - plan.features)]
    above = [(i, i + 1) for i in range(plan.parts - 1)]

    def tick(carry: Any, t: Array) -> Any:
        states, y = carry
        x, options = _chunk(given, t - here, K)
        y, ends = jnp.where(here == 0, x, y), []
        for p, state in zip(layers, states, strict=True):
            end, y = plan.layer(p, y, state, **options)
            y = jnp.pad(y, wide)
            ends.append(end)
        ends, y = vary((ends, y), axes)
        return (ends, lax.ppermute(y, axis, above)), y

    nothing = jnp.zeros_like(_chunk(given, here, K)[0])
    ticks = jnp.arange(chunks + plan.parts - 1, dtype=jnp.int32)
    (states, _), y = lax.scan(tick, vary((first, nothing), axes), ticks)
    y = jnp.moveaxis(y[plan.parts - 1 :], 0, -3)[..., : plan.features]
    y = y.reshape(*y.shape[:-3], chunks * K, plan.features)
    y = lax.psum(jnp.where(here == plan.parts - 1, y, jnp.zeros_like(y)), axis)
    end = jax.tree.map(lambda *a: jnp.stack(a), *states)
    if plan.gathers:
        end = lax.all_gather(end, axis, tiled=True, to="invarying")
    return end, y


def _chunks(T: int, K: int) -> int:
    """How many chunks hold T steps: one, without a valid step, if T is 0."""
    return 1 if T == 0 else -(-T // K)


def _with_wide_sums(params: Any, axes: frozenset[str]) -> Any:
    """Weights varying over the axes; gradients in 16 bits are summed in float32."""
    varying = vary(widened(params), axes)
    return jax.tree.map(lambda a, p: a.astype(p.dtype), varying, params)


def _padded(given: Timed, steps: int) -> Timed:
    """With so many steps, and lengths that tell which of them were there before."""
    x, lengths, mask, resets = given
    if lengths is None:
        lengths = jnp.full_like(x, x.shape[-2], jnp.int32, shape=x.shape[:-2])
    more = steps - x.shape[-2]
    after = lambda a, axes: jnp.pad(
        a, [(0, 0)] * (a.ndim - axes) + [(0, more)] + [(0, 0)] * (axes - 1)
    )
    flags = lambda a: None if a is None else after(a, 1)
    return Timed(after(x, 2), lengths, flags(mask), flags(resets))


def _chunk(given: Timed, at: Array, K: int) -> tuple[Array, dict[str, Array]]:
    """The inputs of chunk number `at`, and a layer's options for it.

    Before the first chunk and after the last there are others, without a valid step.
    """
    x, lengths, mask, resets = given
    start = jnp.clip(at * K, 0, x.shape[-2] - K)
    part = lambda a, axis: lax.dynamic_slice_in_dim(a, start, K, axis)
    left = jnp.where(at < 0, 0, lengths - at * K)
    options = {"lengths": jnp.clip(left, 0, K)}
    if mask is not None:
        options["mask"] = part(mask, mask.ndim - 1)
    if resets is not None:
        options["resets"] = part(resets, resets.ndim - 1)
    return part(x, x.ndim - 2), options
