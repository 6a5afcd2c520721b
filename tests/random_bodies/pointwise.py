"""Operations on each element, and those that change its dtype or have no gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.random_bodies.draw import Draw, Shape
from tests.random_bodies.rules import clipped_gradient, twice_the_slope


def pointwise(f: Callable[..., Any], n: int = 1) -> Callable[[Draw, Shape, int], Any]:
    """`f` of `n` expressions."""

    def apply(d: Draw, shape: Shape, depth: int) -> Any:
        return f(*(d.expression(shape, depth) for _ in range(n)))

    return apply


def interpolate(u: Any, a: Any, b: Any) -> Any:
    return u * a + (1 - u) * b


POINTWISE = [
    *[pointwise(lambda a, b: a + b, 2)] * 3,
    pointwise(lambda a, b: a - b, 2),
    *[pointwise(lambda a, b: a * jnp.tanh(b), 2)] * 2,
    pointwise(lambda a, b: a / (1 + jnp.abs(b)), 2),
    pointwise(lambda a, b, c: interpolate(jax.nn.sigmoid(a), b, c), 3),
    pointwise(lambda a, b, c: jnp.where(a > 0.1, b, c), 3),
    pointwise(lambda a, b, c: lax.select_n(a > 0.1, b, lax.stop_gradient(c)), 3),
    pointwise(jnp.maximum, 2),
    pointwise(jnp.minimum, 2),
    pointwise(lambda a: 0.3 - 2 * a),
    pointwise(lambda a: jnp.exp(-jnp.abs(a))),
    pointwise(lambda a, b: jnp.exp(a - jnp.maximum(a, b)), 2),
    pointwise(lambda a: jnp.sqrt(a * a + 0.1)),
    pointwise(lambda a: jnp.clip(a, -0.5, 0.5)),
    pointwise(lambda a: (a + a) * a),
    pointwise(lambda a: a - lax.stop_gradient(a) + jnp.sign(a)),
    pointwise(lambda a: jnp.round(3 * a) / 3 + 0 * a),
    pointwise(lax.stop_gradient),
    pointwise(twice_the_slope),
    pointwise(clipped_gradient),
    pointwise(jnp.tanh),
    pointwise(jnp.sin),
    pointwise(jax.nn.sigmoid),
    pointwise(jax.nn.relu),
    pointwise(jax.nn.silu),
    pointwise(jax.nn.softplus),
    pointwise(jax.nn.gelu),
    pointwise(jax.nn.hard_sigmoid),
    pointwise(jax.nn.leaky_relu),
]


def complex_product(d: Draw, shape: Shape, depth: int) -> Any:
    """Of values and weights, each taken as a real and an imaginary part."""
    a = lax.complex(d.expression(shape, depth), d.leaf(shape))
    w = lax.complex(jnp.asarray(d.weight(*shape)), jnp.asarray(d.weight(*shape)))
    return (a * w).real


def in_float32(d: Draw, shape: Shape, depth: int) -> Any:
    """Seldom, as such a body is compared less closely."""
    if not d.chance(0.15):
        return None
    if d.notes is not None:
        d.notes.add("narrow")
    return jnp.sin(d.expression(shape, depth).astype(jnp.float32)).astype(jnp.float64)


def unread_and_flat(d: Draw, shape: Shape, depth: int) -> Any:
    """Something that is computed and not read, and something with no gradient."""
    d.product(shape or (1,))
    return d.leaf(shape) * 0.0 + (d.leaf(shape) > 0).astype(float)
