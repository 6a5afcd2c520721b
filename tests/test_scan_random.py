"""Random bodies: `jaxseq.scan` against `lax.scan`, values and gradients."""

import os
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._base.dtypes import floats
from tests.random_bodies.problems import problem as drawn

N = int(os.environ.get("JAXSEQ_TEST_BODIES", 24))
problem = cache(drawn)


def total(out):
    """A sum of the floats with weights of their own."""
    some = [a for a in jax.tree.leaves(floats(out)) if a is not None]
    ramp = lambda a: jnp.cos(jnp.arange(a.size)).astype(a.dtype).reshape(a.shape)
    return sum((a * ramp(a)).sum().astype(jnp.float64) for a in some)


def assert_same(got, want, tolerance):
    """Relative to the largest of an array."""
    is_key = lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    raw = lambda a: jax.random.key_data(a) if is_key(a) else a
    got, want = (jax.tree.map(raw, each) for each in (got, want))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(each, np.float64) for each in (a, b))
        most = tolerance * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=most)


def compared(seed, of_each, tolerance=1e-12):
    """Holds `of_each(run)(*moving)` of both scans to one another."""
    p = problem(seed)

    @jax.jit
    def both(*moving):
        run = lambda scan: lambda *moving: p.run(scan, moving, seed % 2 == 0)
        return [of_each(run(scan))(*moving) for scan in (jaxseq.scan, lax.scan)]

    got, want = both(*p.moving)
    assert_same(got, want, 1e-4 if p.narrow else tolerance)


@pytest.mark.every(3)
@pytest.mark.parametrize("seed", range(N))
def test_a_random_body(seed):
    """Its values; under a gradient too, and the gradients of all or of some floats."""
    which = [(0, 1, 2), (0, 1, 2), (0,), (1,), (2,), (0, 1, 2)][seed % 6]

    def of_each(run):
        def loss(*moving):
            out = run(*moving)
            return total(out), out

        values = run if seed % 3 == 0 else lambda *_: None
        both = jax.value_and_grad(loss, which, has_aux=True)
        return lambda *moving: (both(*moving), values(*moving))

    compared(seed, of_each)


def test_most_are_not_left_to_lax_scan():
    explain = lambda body, state, xs, T, _: jaxseq.explain(body, state, xs, T)
    some = [problem(seed) for seed in range(24)]
    texts = [p.run(explain, p.moving, False) for p in some]
    assert sum(not text.startswith("run by lax.scan") for text in texts) >= 20


# its derivatives of higher order depend on the modes that they are taken in
OWN_RULES = ("twice_the_slope",)


def has_own_rule(seed):
    def text(body, state, xs, *_):
        first = jax.tree.map(lambda a: a[0], xs)
        return str(jax.make_jaxpr(body)(state, first))

    p = problem(seed)
    found = p.run(text, p.moving, False)
    return any(rule in found for rule in OWN_RULES)


def along(run):
    """The derivative along the floats themselves."""
    floating = lambda *moving: floats(run(*moving))
    return lambda *moving: jax.jvp(floating, moving, moving)


def in_members(run, axes):
    """`vmap` of a gradient: over weights, states or inputs."""
    pair = partial(jax.tree.map, lambda a: jnp.stack([a, 0.5 * a]))
    gradient = jax.grad(lambda *moving: total(run(*moving)), (0, 1, 2))

    def over(*moving):
        pairs = [a if n is None else pair(a) for a, n in zip(moving, axes, strict=True)]
        return jax.vmap(gradient, axes)(*pairs)

    return over


def of_second_order(run):
    first = lambda *moving: total(jax.grad(lambda *a: total(run(*a)), (0, 1))(*moving))
    return jax.grad(first, (0, 1, 2))


TRANSFORMS = {
    "jvp": along,
    "vmap over weights": partial(in_members, axes=(0, None, None)),
    "vmap over rows": partial(in_members, axes=(None, 0, 0)),
    "gradient": of_second_order,
}


@pytest.mark.every(2)
@pytest.mark.parametrize("seed", range(-(-N // 8)))
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_a_random_body(name, seed):
    while has_own_rule(seed):
        seed += N
    compared(seed, TRANSFORMS[name], 1e-10)
