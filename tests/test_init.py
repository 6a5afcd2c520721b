"""Initial weights: the distributions that the docstrings promise."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

import jaxseq
from tests.cells import every_cell, run, run_and_gradients

D, H = 200, 64


@partial(jax.jit, static_argnames=("init", "D", "H", "dtype", "forget_bias"))
def initial(init, seed, D=D, H=H, **options):
    return init(jax.random.key(seed), D, H, **options)


@every_cell
def test_input_weights_are_glorot_uniform_gate_by_gate(cell):
    """Glorot and Bengio 2010, equation 16: uniform within ±sqrt(6 / (D + H))."""
    params = initial(cell.init, 0, dtype=jnp.float64)
    bound = np.sqrt(6 / (D + H))
    gates = np.split(np.asarray(params.w_x), cell.gates, axis=1)
    assert len({w[0, 0] for w in gates}) == cell.gates
    for w in gates:
        assert np.abs(w).max() <= bound
        np.testing.assert_allclose(np.abs(w).max(), bound, rtol=0.01)
        np.testing.assert_allclose(w.var(), bound**2 / 3, rtol=0.05)
        # six standard errors, bound / sqrt(3 D H) each
        np.testing.assert_allclose(w.mean(), 0, atol=0.03 * bound)


@every_cell
def test_recurrent_weights_are_orthogonal_gate_by_gate(cell):
    params = initial(cell.init, 0, dtype=jnp.float64)
    gates = np.split(np.asarray(params.w_h), cell.gates, axis=1)
    for w in gates:
        np.testing.assert_allclose(w.T @ w, np.eye(H), atol=1e-12)
    assert all(np.abs(w - gates[0]).max() > 0.1 for w in gates[1:])


@every_cell
def test_biases_are_zero_but_for_the_forget_gate(cell):
    params = initial(cell.init, 0)
    b = np.split(np.asarray(params.b), cell.gates)
    if cell.params is jaxseq.LSTMParams:
        np.testing.assert_array_equal(b.pop(1), 1)
        other = initial(jaxseq.lstm_init, 0, forget_bias=-2.5)
        np.testing.assert_array_equal(np.split(np.asarray(other.b), 4)[1], -2.5)
        chex.assert_trees_all_equal(other._replace(b=params.b), params)
    assert not np.any(b)
    if cell.params is jaxseq.GRUParams:
        assert params.b_hn.shape == (H,) and not params.b_hn.any()


@every_cell
def test_key_and_dtype(cell):
    make = lambda seed: initial(cell.init, seed, D=3, H=4)
    params, other = make(0), make(1)
    chex.assert_trees_all_equal(cell.init(jax.random.key(0), 3, 4), params)
    assert (params.w_x != other.w_x).any() and (params.w_h != other.w_h).any()
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        make = partial(cell.init, jax.random.key(0), 3, 4, dtype=dtype)
        chex.assert_type(jax.tree.leaves(jax.eval_shape(make)), jnp.dtype(dtype))
    assert (params.w_x.dtype, params.w_x.shape) == (jnp.float32, (3, cell.gates * 4))


@every_cell
def test_a_bias_that_is_none_is_none(cell):
    """No bias is a bias of zeros, and has no gradient."""
    params = initial(cell.init, 0, D=3, H=4, dtype=jnp.float64)
    names = [name for name in ("b", "b_hn") if hasattr(params, name)]
    none = params._replace(**dict.fromkeys(names))
    zero = params._replace(**{name: 0 * getattr(params, name) for name in names})
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    outputs, (grads, _, _) = run_and_gradients(cell, none, x)
    for got in (outputs, run(cell, none, x)):
        chex.assert_trees_all_close(got, run(cell, zero, x), rtol=0, atol=1e-15)
    assert all(getattr(grads, name) is None for name in names)
