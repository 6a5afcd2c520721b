"""Rows of whole vectors, which the native kernels read and write where they lie."""

import jax
import jax.numpy as jnp
import pytest

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from jaxseq._kernels.cpu import back, call
from tests.test_native import built_in, masks_of, normal, state_of
from tests.test_native_backward import CLOSE, check, gradients

pytestmark = pytest.mark.usefixtures("native_library")

# B, T, D, H: one block, several, one whose steps are in pieces, rows of 4096 bytes
SHAPES = [(3, 5, 4, 16), (70, 3, 4, 32), (1, 4, 16, 256), (9, 2, 8, 512)]


@pytest.fixture(autouse=True)
def ran(monkeypatch):
    """Sees that each program goes back by the kernels."""
    found = []
    real = back.backward
    monkeypatch.setattr(back, "backward", lambda *a: (found.append(1), real(*a))[1])
    yield
    assert found


@pytest.mark.every(7)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_built_in(op, shape, dtype):
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    check(gradients(f, params, normal(1, B, T, D, dtype=dtype)), dtype)


@pytest.mark.every(3)
@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("names", ["lengths", "mask resets"])
def test_masks(op, names, reverse):
    B, T, H = 6, 7, 16
    options = masks_of(names, B, T)
    f, params = built_in(op, 8, H, jnp.float64)
    x = normal(1, B, T, 8)
    check(gradients(f, params, x, state_of(op, B, H), reverse=reverse, **options))


@pytest.mark.parametrize("vectors", [0, 1])
def test_narrower_vectors(vectors, monkeypatch):
    monkeypatch.setattr(call, "VECTORS", vectors)
    jax.clear_caches()
    f, params = built_in("lstm", 4, 12, jnp.float32)
    check(gradients(f, params, normal(1, 9, 4, 4, dtype=jnp.float32)), jnp.float32)
    jax.clear_caches()


def test_product_of_a_product():
    cell = MULTIPLICATIVE_LSTM
    params = cell.init(jax.random.key(0), 8, 16, dtype=jnp.float64)

    def f(params, x, implementation):
        zeros = cell.zeros(params, (3,))
        how = {"implementation": implementation}
        return jaxseq.cell(cell.update, params, x, zeros, **how)

    check(gradients(f, params, normal(1, 3, 5, 8)))


def test_what_is_read_after_its_gradient_was_written():
    """Of two factors, one is read when the gradient of the other has been written."""

    def update(z_x, h, w_h, extra):
        a, b, c, d = jnp.split(z_x + w_h(h), 4)
        return a * jnp.sin(b) + jnp.sin(c) * d

    H = 16
    params = jaxseq.cell_init(
        jax.random.key(0), 5, 4 * H, (H, 4 * H), dtype=jnp.float64
    )

    def f(params, x, implementation):
        how = {"implementation": implementation}
        return jaxseq.cell(update, params, x, jnp.zeros((3, H)), **how)

    check(gradients(f, params, normal(1, 3, 4, 5)))
