"""Few rows: all threads run each step together, each a piece of the units."""

import jax
import jax.numpy as jnp
import pytest

from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from tests.native.problems import (
    built_in,
    cell_run,
    check,
    gradients,
    normal,
    random_weights,
)

pytestmark = pytest.mark.usefixtures("native_library")


def test_product_of_a_product():
    """Threads meet twice in a step, once for each matrix."""
    params = random_weights(MULTIPLICATIVE_LSTM.init, 5, 140)
    check(gradients(cell_run(MULTIPLICATIVE_LSTM, 2), params, normal(1, 2, 5, 5)))


@pytest.mark.parametrize("T", [4, 5])
def test_sixteen_bits(T):
    """Matrices of bfloat16 are rounded to: the results are those of more rows."""
    f, params = built_in("gru", 8, 192, jnp.bfloat16)
    x = normal(1, 40, T, 8, dtype=jnp.bfloat16)
    run = jax.jit(lambda x: f(params, x, implementation="native")[1])
    whole, few = run(x), run(x[:3])
    error = jnp.abs(whole[:3].astype(jnp.float32) - few.astype(jnp.float32)).max()
    assert error < 0.01 and jnp.isfinite(whole).all()
