"""Updates that hold what few have: the native kernels run them, or leave them alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq

pytestmark = pytest.mark.usefixtures("native_library")


def values_and_gradients(update, dtype, implementation):
    params = jaxseq.cell_init(jax.random.key(0), 3, 8, (8, 8), dtype=dtype)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 3)), dtype)

    def loss(params, x):
        y = jaxseq.cell(update, params, x, zeros=8, implementation=implementation)[1]
        return jnp.sin(y).sum(), y

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)


def check(update, dtype=jnp.float64):
    found, want = (values_and_gradients(update, dtype, how) for how in (None, "scan"))
    limit = {"rtol": 0, "atol": 1e-12 if dtype == jnp.float64 else 1e-5}
    for one, other in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(one, other, **limit)


def reducing(bits):
    return lambda z, h, w_h, _: jnp.tanh(lax.reduce_precision(z + w_h(h), *bits))


@pytest.mark.parametrize("bits", [(8, 7), (5, 10), (8, 23), (11, 52)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_precision_that_is_reduced(dtype, bits):
    check(reducing(bits), dtype)


def test_a_precision_that_is_not_reduced_is_no_limit():
    """`jax.checkpoint` asks for it, where something is saved."""
    for dtype, bits in ((jnp.float32, (8, 23)), (jnp.float64, (11, 52))):
        values_and_gradients(reducing(bits), dtype, "native")
    with pytest.raises(ValueError, match="reduce_precision of float64"):
        values_and_gradients(reducing((8, 7)), jnp.float64, "native")


def test_a_function_that_gives_nothing():
    nothing = jax.jit(lambda a: None)

    def update(z, h, w_h, _):
        nothing(z)
        return jnp.tanh(z + w_h(h))

    check(update)
