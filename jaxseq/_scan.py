"""A cell over time as the plainest `lax.scan`: what the fast paths are held to."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._cell import Maps, Masks, Update, affine, output, recurrent, select


def scan(
    update: Update, maps: Maps, x: Array, state: Any, masks: Masks, reverse: bool
) -> tuple[Any, Array]:
    """Runs widened maps over `x` `(..., T, D)`: `(state, y)`."""

    def body(state: Any, inputs: Any) -> tuple[Any, Array]:
        x_t, (valid, keep) = inputs
        # padded steps run on zeros, so that no derivative in them is NaN
        z_x = affine(select(valid, x_t), maps.w_x, maps.b)
        old = select(keep, state)
        new = update(z_x, recurrent(maps, old, x.dtype), old)
        state = select(valid, new, state)
        return state, output(state, valid, x.dtype)

    return _over_time(body, state, (x, masks), reverse)


def scan_tangents(
    update: Update,
    maps: Maps,
    z_x: Array,
    state: Any,
    masks: Masks,
    reverse: bool,
    dtype: Any,
    tangents: tuple[Array, Array, Any],
) -> tuple[Any, Array]:
    """Tangents of `(state, y)` for those of `z_x`, of `z_h` itself, and of `state`."""

    def run(z_x: Array, shift: Array, state: Any) -> tuple[Any, Array]:
        def body(state: Any, inputs: Any) -> tuple[Any, Array]:
            z_x, shift, (valid, keep) = inputs
            old = select(keep, state)
            new = update(z_x, recurrent(maps, old, dtype) + shift, old)
            state = select(valid, new, state)
            return state, output(state, valid, dtype)

        return _over_time(body, state, (z_x, shift, masks), reverse)

    return jax.jvp(run, (z_x, jnp.zeros_like(tangents[1]), state), tangents)[1]


def _over_time(body: Any, state: Any, inputs: Any, reverse: bool) -> tuple[Any, Array]:
    x, *others, masks = inputs
    inputs = (
        *(jnp.moveaxis(a, -2, 0) for a in (x, *others)),
        jax.tree.map(lambda m: jnp.moveaxis(m, -1, 0), masks),
    )
    state, y = lax.scan(body, state, inputs, reverse=reverse)
    return state, jnp.moveaxis(y, 0, -2)
