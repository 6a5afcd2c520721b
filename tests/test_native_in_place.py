"""Rows of whole vectors, which the native kernels read and write where they lie."""

import jax
import jax.numpy as jnp
import pytest

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from jaxseq._kernels.cpu import call
from tests.native.problems import (
    built_in,
    cell_run,
    check,
    gradients,
    normal,
    random_weights,
)

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.parametrize("vectors", [0, 1])
def test_narrower_vectors(vectors, monkeypatch, ran):
    monkeypatch.setattr(call, "VECTORS", vectors)
    jax.clear_caches()
    f, params = built_in("lstm", 4, 12, jnp.float32)
    check(gradients(f, params, normal(1, 9, 4, 4, dtype=jnp.float32)), jnp.float32)
    assert ran == ["forward", "backward"]
    jax.clear_caches()


def test_product_of_a_product(ran):
    params = random_weights(MULTIPLICATIVE_LSTM.init, 8, 16)
    run = cell_run(MULTIPLICATIVE_LSTM, 3)
    check(gradients(run, params, normal(1, 3, 5, 8)))
    assert ran == ["forward", "backward"]


def test_what_is_read_after_its_gradient_was_written(ran):
    """Of two factors, one is read when the gradient of the other has been written."""

    def update(z_x, h, w_h, extra):
        a, b, c, d = jnp.split(z_x + w_h(h), 4)
        return a * jnp.sin(b) + jnp.sin(c) * d

    H = 16
    params = random_weights(jaxseq.cell_init, 5, 4 * H, (H, 4 * H))

    def f(params, x, implementation):
        how = {"implementation": implementation}
        return jaxseq.cell(update, params, x, jnp.zeros((3, H)), **how)

    check(gradients(f, params, normal(1, 3, 4, 5)))
    assert ran == ["forward", "backward"]
