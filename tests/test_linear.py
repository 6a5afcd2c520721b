"""A linear map with a transpose of its own, beside what JAX makes of the map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from jaxseq._engine.linear import with_transpose


def plain(w, x):
    """c_t = tanh(w_t c_{t-1} + x_t): the last one and all."""

    def body(c, now):
        w_t, x_t = now
        c = jnp.tanh(w_t * c + x_t)
        return c, c

    return jax.lax.scan(body, jnp.ones(()), (w, x))


def tangent(known, b, *, factor):
    def body(d, now):
        w_t, c_t, b_t = now
        d = (1 - c_t**2) * (w_t * d + b_t)
        return d, d

    return jax.lax.scan(body, jnp.zeros(()), (*known, b))


def transpose(known, like, d, *, factor):
    def body(d, now):
        w_t, c_t, d_t = now
        d = (1 - c_t**2) * (d + d_t)
        return w_t * d, factor * d

    d_end, d_cs = d
    return jax.lax.scan(body, d_end, (*known, d_cs), reverse=True)[1]


def rule(factor):
    """The same with a rule of its own, whose transpose is `factor` times too large."""
    run = jax.custom_jvp(plain)

    @run.defjvp
    def _(primals, tangents):
        (w, x), (d_w, d_x) = primals, tangents
        out = run(w, x)
        before = jnp.concatenate([jnp.ones(1), out[1][:-1]])
        b = before * d_w + d_x
        return out, with_transpose(
            tangent, transpose, (w, out[1]), b, out, factor=factor
        )

    return run


@pytest.fixture
def arrays():
    return tuple(np.random.default_rng(0).normal(size=(2, 5)))


def loss(run):
    def of(w, x):
        end, cs = run(w, x)
        return jnp.sin(end) + jnp.sum(jnp.cos(3 * cs) * jnp.arange(1.0, 6))

    return of


GRAD = lambda f: jax.grad(f, (0, 1))
DERIVATIVES = {
    "none": lambda f: f,
    "reverse": GRAD,
    "forward": lambda f: jax.jacfwd(f, (0, 1)),
    "forward of reverse": lambda f: jax.jacfwd(GRAD(f), (0, 1)),
    "reverse of reverse": lambda f: jax.jacrev(GRAD(f), 1),
    "third": lambda f: jax.jacfwd(jax.jacrev(jax.grad(f, 1), 1), 1),
    "mapped": lambda f: (
        lambda w, x: jax.vmap(GRAD(f), (None, 0))(w, jnp.stack([x, -x]))
    ),
    "mapped twice": lambda f: (
        lambda w, x: jax.vmap(jax.vmap(GRAD(f), (1, None)), (None, 0))(
            jnp.stack([w, w / 2, -w], 1), jnp.stack([x, -x])
        )
    ),
    "constants mapped": lambda f: (
        lambda w, x: jax.vmap(GRAD(f), (0, None))(jnp.stack([w, w / 2]), x)
    ),
    "second, mapped": lambda f: (
        lambda w, x: jax.vmap(jax.jacfwd(GRAD(f), (0, 1)), (0, None))(
            jnp.stack([w, w / 2]), x
        )
    ),
    "second of what is computed again": lambda f: jax.jacfwd(
        GRAD(jax.checkpoint(f)), (0, 1)
    ),
}


@pytest.mark.parametrize("of", DERIVATIVES.values(), ids=DERIVATIVES)
def test_derivatives_of_all_orders(of, arrays):
    mine, theirs = (jax.jit(of(loss(run)))(*arrays) for run in (rule(1.0), plain))
    assert_trees_all_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1], ids=["end", "all"])
def test_one_result_alone(k, arrays):
    of = lambda run: GRAD(lambda w, x: jnp.sin(run(w, x)[k]).sum())
    mine, theirs = (of(run)(*arrays) for run in (rule(1.0), plain))
    assert_trees_all_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_reverse_mode_alone_goes_through_the_transpose(arrays):
    once, twice = loss(rule(1.0)), loss(rule(2.0))
    doubled = jax.tree.map(lambda a: 2 * a, GRAD(once)(*arrays)[1])
    assert_trees_all_close(GRAD(twice)(*arrays)[1], doubled)
    assert_trees_all_close(jax.jacfwd(twice)(*arrays), jax.jacfwd(once)(*arrays))


def test_infinite_constants_make_no_nan(arrays):
    w, x = arrays
    run = rule(1.0)
    # tanh is flat there, and so is all that follows but for x
    x = np.where(np.arange(5) == 1, np.inf, x)
    second = jax.jacfwd(jax.grad(loss(run), 1), 1)
    want = jax.jacfwd(jax.grad(loss(plain), 1), 1)
    assert np.isfinite(want(w, x)).all()
    assert_trees_all_close(second(w, x), want(w, x), rtol=1e-12, atol=1e-12)
