"""Operations that read flags, integers or random keys, where there are some."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.random_bodies.draw import Draw, Shape


def reset(d: Draw, shape: Shape, depth: int) -> Any:
    return d.reset(d.expression(shape, depth)) if d.flags else None


def embedding(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    i = d.pick(d.ints) % 3
    table = jnp.asarray(d.weight(3, shape[-1]))
    return d.fitted(
        table[i] if d.chance(0.6) else jax.nn.one_hot(i, 3, dtype=float) @ table, shape
    )


def dropout_or_noise(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.keys:
        return None
    key, a = d.pick(d.keys), d.expression(shape, depth)
    if d.chance(0.3):
        return a + 0.1 * jax.random.normal(key, shape)
    return jnp.where(jax.random.bernoulli(key, 0.7, shape), a / 0.7, 0.0)


def slice_at_step(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    a = d.expression((shape[0] + 1, *shape[1:]), depth)
    return lax.dynamic_slice_in_dim(a, d.pick(d.ints).sum() % 2, shape[0])


def write_at_step(d: Draw, shape: Shape, depth: int) -> Any:
    if not d.ints or not shape:
        return None
    a, b = d.expression(shape, depth), d.expression(shape[1:], depth)
    i = d.pick(d.ints).sum() % shape[0]
    return (
        lax.dynamic_update_index_in_dim(a, b, i, 0) if d.chance(0.5) else a.at[i].set(b)
    )
