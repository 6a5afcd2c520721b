"""Weights that are computed: of other weights, the state, inputs or nothing."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.random_bodies.draw import Draw, Shape


def transposed(d: Draw, s: Shape) -> Any:
    """One that is read elsewhere as it is, if there is one."""
    alike = [k for k, shape in d.known if shape == s[::-1]]
    if alike:
        return jnp.asarray(d.weights[d.pick(alike)]).T
    return d.leaf_weight(*s[::-1]).T


def normalised(d: Draw, s: Shape) -> Any:
    v = d.leaf_weight(*s)
    if not s:
        return v
    return v * d.leaf_weight(*s[-1:]) / jnp.sqrt((v * v).sum(0) + 0.1)


def low_rank(d: Draw, s: Shape) -> Any:
    if len(s) != 2:
        return d.leaf_weight(*s)
    return d.weight(s[0], 2) @ d.weight(2, s[1])


def sliced(d: Draw, s: Shape) -> Any:
    whole = d.weight(*s[:-1], s[-1] + 2) if s else d.weight(2)
    return whole[..., 1:-1] if s else whole[1]


def joined(d: Draw, s: Shape) -> Any:
    if not s or s[-1] < 2:
        return d.leaf_weight(*s)
    return jnp.concatenate([d.weight(*s[:-1], 1), d.weight(*s[:-1], s[-1] - 1)], -1)


def scaled_by_input(d: Draw, s: Shape) -> Any:
    return d.leaf_weight(*s) * (1 + 0.3 * d.leaf((), d.inputs))


def scaled_by_state(d: Draw, s: Shape) -> Any:
    return d.leaf_weight(*s) * (1 + 0.3 * d.leaf((), d.states))


def indexed(d: Draw, s: Shape) -> Any:
    i = d.pick(d.ints).sum() % 2 if d.ints else 1
    return d.leaf_weight(2, *s)[i]


def constant(d: Draw, s: Shape) -> Any:
    return d.rng.standard_normal(s) / math.sqrt(max(s, default=1))


WEIGHTS: list[Callable[[Draw, Shape], Any]] = [
    transposed,
    transposed,
    normalised,
    low_rank,
    sliced,
    joined,
    scaled_by_input,
    scaled_by_state,
    indexed,
    constant,
    lambda d, s: d.leaf_weight(*s) + 0.5 * d.weight(*s),
    lambda d, s: d.leaf_weight(math.prod(s)).reshape(s),
    lambda d, s: d.leaf_weight(*s) * (constant(d, s) > 0).astype(float),
    lambda d, s: jax.nn.softmax(d.leaf_weight(*s), -1) if s else d.leaf_weight(),
    lambda d, s: lax.stop_gradient(d.leaf_weight(*s)),
    lambda d, s: jnp.eye(*s) if len(s) == 2 else jnp.full(s, 0.5),
    lambda d, s: jax.jit(jnp.tanh)(d.weight(*s)),
    lambda d, s: jax.nn.silu(d.weight(*s)),
    lambda d, s: d.leaf_weight(*s, 1)[..., 0],
    lambda d, s: d.inside(lambda d: jax.jit(lambda w: w * constant(d, s)))()(
        d.weight(*s)
    ),
]
