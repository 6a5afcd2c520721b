"""Calls, branches, loops, `vmap` and gradients inside a body."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jaxseq
from tests.random_bodies.draw import Draw, Shape


def expression_in_call(d: Draw, shape: Shape, depth: int) -> Any:
    wrap = d.pick([jax.jit, jax.checkpoint, jax.jit])
    f = d.inside(lambda d, a: jnp.tanh(a) + d.expression(shape, depth))
    return wrap(f)(d.leaf(shape))


def product_in_call(d: Draw, shape: Shape, depth: int) -> Any:
    wrap = d.pick([jax.jit, jax.checkpoint, lambda f: jax.checkpoint(jax.jit(f))])
    if not shape:
        return None
    f = lambda a, w: jnp.tanh(a @ w)
    return wrap(f)(d.leaf((*shape[:-1], 3)), d.weight(3, shape[-1]))


def cond(d: Draw, shape: Shape, depth: int) -> Any:
    one = d.inside(lambda d, a: a * d.expression(shape, depth - 1))
    two = d.inside(lambda d, a: d.expression(shape, depth - 1) - a)
    which = d.pick(d.ints).sum() % 2 == 0 if d.ints else d.leaf(()) > 0
    return lax.cond(which, one, two, d.expression(shape, depth))


def loop(d: Draw, shape: Shape, depth: int) -> Any:
    step = d.inside(lambda d, a: jnp.tanh(a + d.expression(shape, depth - 1)))
    product = d.inside(lambda d, a: d.product(shape, [a]))
    a = d.expression(shape, depth)
    if d.chance(0.4):
        return lax.fori_loop(0, 2, lambda _, a: step(a), a)
    scan = d.pick([lax.scan, jaxseq.scan])
    return scan(lambda a, _: (jnp.tanh(product(a)), None), a, None, 2)[0]


def vmap_over_rows(d: Draw, shape: Shape, depth: int) -> Any:
    if len(shape) < 2:
        return None
    rows = [d.expression(shape, depth), d.leaf(shape)]
    if d.chance(0.5):
        rows[1] = d.weight(*shape)

    def f(d: Draw, a: Any, b: Any) -> Any:
        d.pool += [a, b]
        return a + d.expression(shape[1:], depth) * b

    return jax.vmap(d.inside(f))(*rows)


def gradient(d: Draw, shape: Shape, depth: int) -> Any:
    if not shape:
        return None
    f = d.inside(lambda d, a: jnp.sin(d.product(shape, [a])).sum())
    return jax.grad(f)(d.leaf(shape))
