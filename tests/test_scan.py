"""`jaxseq.scan` against `lax.scan`: values and gradients, of any body."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._scan.scan import analysed, scan
from tests.bodies import BODIES

PLAIN = set()


def problem(name):
    make, w, state, xs = BODIES[name](np.random.default_rng(3))
    return make, (w, state, xs)


def both_ways(run, make, moving, given, reverse):
    """Values, and gradients by all floats of a sum with weights of its own."""

    def loss(moving):
        w, state, xs = with_floats(moving, given)
        length = None if jax.tree.leaves(xs) else 4
        end, ys = run(make(w), state, xs, length, reverse)
        some = [a for a in jax.tree.leaves(floats((end, ys))) if a is not None]
        ramp = lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
        return sum((a * ramp(a)).sum() for a in some), (end, ys)

    return jax.value_and_grad(loss, has_aux=True)(moving)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", BODIES)
def test_equals_lax_scan(name):
    make, given = problem(name)
    reverse = len(name) % 2 == 0

    @jax.jit
    def compared(moving):
        return [
            both_ways(run, make, moving, given, reverse) for run in (scan, lax.scan)
        ]

    w, state, xs = given
    found = analysed(make(w), state, xs, None if jax.tree.leaves(xs) else 4)
    assert (found.why is None) == (name not in PLAIN), found.why
    got, want = compared(floats(given))
    raw = lambda a: jax.random.key_data(a) if is_key(a) else a
    got, want = (jax.tree.map(raw, each) for each in (got, want))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def is_key(a):
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
