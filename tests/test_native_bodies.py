"""Bodies of scans by the native kernels, against `lax.scan`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._base.dtypes import floats
from tests.bodies import BODIES

pytestmark = pytest.mark.usefixtures("native_library")
NAMES = [
    "nnx OptimizedLSTMCell",
    "linen LSTMCell",
    "linen GRUCell",
    "linen MGUCell",
    "resets of a policy",
    "peepholes",
    "two layers",
    "silu of two",
    "weight in a norm",
    "counter in the state",
    "index as output",
    "state read before",
    "concatenation",
    "one row",
    "rows by vmap",
]


def of_kinds(rng):
    """Flags and numbers of each row, in the state, the inputs and the outputs."""
    B, T, D, H = 3, 4, 3, 5
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    w = {"x": draw(D, H), "h": draw(H, H) / 2, "b": draw(1, H), "s": draw(1, 1)}

    def make(w):
        def body(state, now):
            h, best, seen = state
            x, number, flag = now
            h = jnp.where((flag & ~seen)[:, None], 0.0, h) * number[:, None]
            h = jnp.tanh(x @ w["x"] + h @ w["h"] + w["b"]) * w["s"]
            best = jnp.maximum(best, h.max(-1))
            alike = (h > 0) == (x[:, :1] > 0)
            y = {"best": best, "any": (h > 0.5).any(-1), "alike": alike, "seen": seen}
            return (h, best, seen ^ flag), y

        return body

    state = draw(B, H), draw(B), jnp.asarray(rng.random(B) < 0.5)
    return (
        make,
        w,
        state,
        (draw(T, B, D), draw(T, B), jnp.asarray(rng.random((T, B)) < 0.5)),
    )


@pytest.mark.every(2)
@pytest.mark.parametrize("name", [*NAMES, "of kinds"])
def test_a_body(name, ran):
    maker = of_kinds if name == "of kinds" else BODIES[name]
    make, w, state, xs = maker(np.random.default_rng(0))

    def everything(scan):
        def run(w):
            out = scan(make(w), state, xs)
            some = [a for a in jax.tree.leaves(floats(out)) if a is not None]
            return sum(jnp.sin(a).sum() for a in some), out

        return scan(make(w), state, xs), jax.grad(run, has_aux=True)(w)

    got = jax.jit(lambda: everything(jaxseq.scan))()
    assert "forward" in ran
    want = jax.jit(lambda: everything(lax.scan))()
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)
