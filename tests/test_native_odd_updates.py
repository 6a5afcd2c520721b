"""Updates that hold what few have: the native kernels run them, or leave them alone."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxseq
from tests.native.problems import check, gradients, normal, random_weights

pytestmark = pytest.mark.usefixtures("native_library")


def pair(update, dtype, name="native"):
    """The engine's values and gradients, and those of the plain scan."""
    params = random_weights(jaxseq.cell_init, 3, 8, (8, 8), dtype=dtype)

    def run(params, x, implementation):
        how = None if implementation == "native" and name is None else implementation
        return jaxseq.cell(update, params, x, zeros=8, implementation=how)

    return gradients(run, params, normal(1, 4, 5, 3, dtype=dtype))


def reducing(bits):
    return lambda z, h, w_h, _: jnp.tanh(lax.reduce_precision(z + w_h(h), *bits))


@pytest.mark.parametrize("bits", [(8, 7), (5, 10), (8, 23), (11, 52)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_precision_that_is_reduced(dtype, bits):
    """By the engine or without it."""
    check(pair(reducing(bits), dtype, None), dtype)


def test_a_precision_that_is_not_reduced_is_no_limit(ran):
    """`jax.checkpoint` adds such a `reduce_precision` to what it saves."""
    for dtype, bits in ((jnp.float32, (8, 23)), (jnp.float64, (11, 52))):
        check(pair(reducing(bits), dtype), dtype)
        assert {"forward", "backward"} <= set(ran)
        ran.clear()
    with pytest.raises(ValueError, match="reduce_precision of float64"):
        pair(reducing((8, 7)), jnp.float64)


def test_a_function_that_gives_nothing(ran):
    nothing = jax.jit(lambda a: None)

    def update(z, h, w_h, _):
        nothing(z)
        return jnp.tanh(z + w_h(h))

    check(pair(update, jnp.float64))
    assert {"forward", "backward"} <= set(ran)
