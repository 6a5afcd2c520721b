"""Few rows: all threads run each step together, each a piece of the units."""

import jax
import jax.numpy as jnp
import pytest

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from tests.test_native import built_in, masks_of, normal, state_of
from tests.test_native_backward import check, gradients

pytestmark = pytest.mark.usefixtures("native_library")

# B, T, D, H: units that two threads cannot share evenly, a last vector not full,
# a matrix of one panel and of many, an odd and an even number of steps
SHAPES = [
    (1, 5, 3, 96),
    (1, 4, 8, 130),
    (2, 3, 5, 200),
    (7, 4, 4, 104),
    (3, 6, 16, 257),
]


@pytest.mark.every(3)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_built_in(op, shape):
    B, T, D, H = shape
    f, params = built_in(op, D, H, jnp.float64)
    check(gradients(f, params, normal(1, B, T, D)))


@pytest.mark.parametrize("names", ["lengths", "mask resets"])
@pytest.mark.parametrize("reverse", [False, True])
def test_masks(names, reverse):
    B, T, H = 6, 7, 120
    options = masks_of(names, B, T)
    f, params = built_in("lstm", 4, H, jnp.float64)
    x = normal(1, B, T, 4)
    check(gradients(f, params, x, state_of("lstm", B, H), reverse=reverse, **options))


def test_product_of_a_product():
    """Threads meet twice in a step, once for each matrix."""
    cell, B, H = MULTIPLICATIVE_LSTM, 2, 140
    params = cell.init(jax.random.key(0), 5, H, dtype=jnp.float64)

    def f(params, x, implementation):
        zeros = cell.zeros(params, (B,))
        return jaxseq.cell(cell.update, params, x, zeros, implementation=implementation)

    check(gradients(f, params, normal(1, B, 5, 5)))


@pytest.mark.parametrize("T", [4, 5])
def test_sixteen_bits(T):
    """Matrices of bfloat16 are rounded to: the results are those of more rows."""
    f, params = built_in("gru", 8, 192, jnp.bfloat16)
    x = normal(1, 40, T, 8, dtype=jnp.bfloat16)
    run = jax.jit(lambda x: f(params, x, implementation="native")[1])
    whole, few = run(x), run(x[:3])
    error = jnp.abs(whole[:3].astype(jnp.float32) - few.astype(jnp.float32)).max()
    assert error < 0.01 and jnp.isfinite(whole).all()
