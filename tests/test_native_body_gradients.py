"""Gradients of the weights of bodies by the native kernels, against `lax.scan`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxseq
from jaxseq._engine import sums
from jaxseq._kernels.cpu import gradients as native
from jaxseq._kernels.cpu import limits
from tests.native.problems import normal

pytestmark = pytest.mark.usefixtures("native_library")
B, T, D, H = 3, 5, 4, 6


@pytest.fixture(autouse=True)
def ways(monkeypatch):
    """For each sum, which way its gradients were computed, of all that have any."""
    found, by_kernels, by_xla = [], native.gradients, sums._by_xla

    def kernels(*args):
        found.append("kernels")
        return by_kernels(*args)

    def xla(*args):
        found.append("xla")
        return by_xla(*args)

    monkeypatch.setattr(native, "gradients", kernels)
    monkeypatch.setattr(sums, "_by_xla", xla)
    monkeypatch.setattr(limits, "FEW", 0)
    jax.clear_caches()
    yield found
    jax.clear_caches()


def several(w, state, x):
    """Two matrices of the state, and two of the input, in unlike sums."""
    z = jnp.tanh(x @ w["x"] + state @ w["h"] + w["b"])
    g = jax.nn.sigmoid(x @ w["y"] + w["c"] + (z * state) @ w["u"])
    return g * state + (1 - g) * z


def twice(w, state, x):
    """A product that is read twice, and one matrix that reads two arrays."""
    z, k = x @ w["x"], state @ w["h"]
    return jnp.tanh(z + k + w["b"]) * jnp.cos(k) + jnp.sin(z) + (z * state) @ w["h"]


def layers(w, state, x):
    """Two layers that share their weights, but for those of the first one's input."""
    h, k = state
    h = jnp.tanh(x @ w["x"] + w["b"] + h @ w["h"])
    return h, jnp.tanh(h @ w["u"] + w["b"] + k @ w["h"])


def tied(w, state, x):
    """A matrix, and the same one transposed."""
    z = jnp.tanh(x @ w["x"] + state @ w["h"])
    return jnp.tanh(z @ w["h"].T + w["b"]) * w["c"]


def gated(w, state, x):
    """Two gates of which one has its bias inside a product, and one none."""
    a, b = x @ w["xx"] + w["bb"], state @ w["hh"]
    r = jax.nn.sigmoid(a[..., :H] + b[..., :H])
    return jnp.tanh(a[..., H:] + r * (b[..., H:] + w["c"])) + state / 2


WEIGHTS = {
    **{"x": (D, H), "y": (D, H), "h": (H, H), "u": (H, H), "b": (H,), "c": (H,)},
    **{"xx": (D, 2 * H), "hh": (H, 2 * H), "bb": (2 * H,)},
}
BODIES = several, twice, layers, tied, gated


def check(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)


def gradients(scan, body, w, state, xs):
    def loss(w, state, xs):
        step = lambda state, x: (new := body(w, state, x), jax.tree.map(jnp.sin, new))
        return sum(a.sum() for a in jax.tree.leaves(scan(step, state, xs)))

    return jax.grad(loss, (0, 1, 2))(w, state, xs)


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("body", BODIES)
def test_products(body, members, ways):
    lead = () if members is None else (members,)
    w = {k: normal(i, *lead, *WEIGHTS[k]) / 2 for i, k in enumerate(WEIGHTS)}
    used = body.__code__.co_consts
    w = {k: a for k, a in w.items() if k in used}
    state, xs = normal(20, B, H), normal(21, T, B, D)
    if body is layers:
        state = state, normal(22, B, H)

    def run(scan):
        one = partial(gradients, scan, body)
        one = one if members is None else jax.vmap(one, (0, None, None))
        return jax.jit(one)(w, state, xs)

    check(run(jaxseq.scan), run(lax.scan))
    assert set(ways) == {"kernels"}


@pytest.mark.parametrize("cell", [nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_cells_of_flax(cell, ways):
    like = {"param_dtype": jnp.float64, "dtype": jnp.float64}
    graph, w = nnx.split(cell(D, H, **like, rngs=nnx.Rngs(0)))
    w = jax.tree.map(lambda a: a + normal(1, *a.shape) / 9, w)
    state = normal(2, B, H)
    if cell is not nnx.GRUCell:
        state = state, normal(3, B, H)
    body = lambda w, state, x: nnx.merge(graph, w)(state, x)[0]
    run = lambda scan: jax.jit(partial(gradients, scan, body))
    args = w, state, normal(4, T, B, D)
    check(run(jaxseq.scan)(*args), run(lax.scan)(*args))
    assert set(ways) == {"kernels"}
