"""What layers do: biases, gains, norms, gates, attention and fast weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.random_bodies.draw import Draw, Shape


def bias(d: Draw, shape: Shape, depth: int) -> Any:
    return d.expression(shape, depth) + d.bias(shape)


def gain(d: Draw, shape: Shape, depth: int) -> Any:
    return d.expression(shape, depth) * (1 + d.bias(shape))


def layer_norm(d: Draw, shape: Shape, depth: int) -> Any:
    if not shape:
        return None
    a = d.product(shape) if d.chance(0.5) else d.expression(shape, depth)
    axes = d.pick([-1, 0, None])
    if d.chance(0.5):
        a = a - a.mean(axes, keepdims=True)
    a = a * lax.rsqrt((a * a).mean(axes, keepdims=True) + 0.1)
    return a * (1 + d.bias(shape)) + d.bias(shape)


def gates(d: Draw, shape: Shape, depth: int) -> Any:
    """Several gates of one product, by any way to take it apart."""
    if not shape:
        return None
    *lead, O = shape
    k = d.pick([2, 3, 4])
    wide = *lead, k * O
    z = d.state_and_input(wide) if d.chance(0.5) else d.product(wide)
    if d.chance(0.5):
        z = z + d.bias(wide)
    if d.chance(0.2):
        z = jnp.tanh(z)
    ways = [
        lambda: jnp.split(z, k, -1),
        lambda: [z[..., i * O : (i + 1) * O] for i in range(k)],
        lambda: [z[..., i::k] for i in range(k)],
        lambda: [z.reshape(*lead, k, O)[..., i, :] for i in range(k)],
        lambda: jnp.unstack(z.reshape(*lead, O, k), axis=-1),
        lambda: list(jnp.moveaxis(z.reshape(*lead, k, O), -2, 0)),
        lambda: jnp.split(z.reshape(*lead, k, O).swapaxes(-1, -2).reshape(wide), k, -1),
        lambda: [a.T.reshape(shape) for a in jnp.split(z.T, k, 0)],
    ]
    a, b, *rest = d.pick(ways)()
    total = jax.nn.sigmoid(a + d.bias(shape) if d.chance(0.3) else a) * jnp.tanh(b)
    for c in rest:
        total = total + d.pick([jnp.tanh, jax.nn.relu, jnp.sin])(c) * d.leaf(shape)
    return total


def attention_to_state(d: Draw, shape: Shape, depth: int) -> Any:
    """Over a memory of the state, by queries that a weight makes."""
    if len(shape) != 2:
        return None
    B, O = shape
    keys, values = d.leaf((B, 3, 2), d.states), d.leaf((B, 3, O), d.states)
    scores = jnp.einsum("bi,bmi->bm", d.product((B, 2)), keys)
    return jnp.einsum("bm,bmo->bo", jax.nn.softmax(scores, -1), values)


def fast_weights(d: Draw, shape: Shape, depth: int) -> Any:
    """A matrix of two vectors, read by a third."""
    if len(shape) != 1:
        return None
    a, b, c = d.leaf(shape), d.leaf((3,)), d.product((3,))
    return jnp.outer(a, jnp.tanh(b)) @ c / 3
