"""Dtypes: kept from input to output; 16 bits in, sums and states in float32."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._base.linear import linear
from jaxseq._base.mesh import rows
from jaxseq._cells.rnn import RNNUpdate
from jaxseq._engine.backends import CPU_LOOP, LOOP
from tests.cells import CELLS, every_cell, expected, random_problem, run, to_jax
from tests.engine import ONE, parts

DTYPES = [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16]
SIXTEEN = [jnp.bfloat16, jnp.float16]


def state_dtype(dtype):
    return jnp.float32 if dtype in SIXTEEN else dtype


def problem(cell, dtype, **sizes):
    """A problem rounded to `dtype`, and the same values in float64."""
    params, x, state = random_problem(cell, **sizes)
    params, x = to_jax((params, x), dtype)
    state = to_jax(state, state_dtype(dtype))
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x, state))
    return (params, x, state), wide


@every_cell
@pytest.mark.parametrize("dtype", DTYPES)
def test_output_has_the_dtype_of_the_input(cell, dtype):
    (params, x, state), _ = problem(cell, dtype, batch=(2,), T=4, D=3, H=4)

    def loss(params, x, state):
        end, y = cell.sequence(params, x, state)
        return y.sum().astype(jnp.float32) + weighted_float32(end)

    def everything():
        outputs = (
            cell.sequence(params, x),
            cell.sequence(params, x, state),
            cell.step(params, state, x[:, 0]),
        )
        weights = cell.init(jax.random.key(0), 3, 4, dtype=dtype)
        grads = jax.grad(loss, argnums=(0, 1, 2))(params, x, state)
        return outputs, cell.zeros(params), weights, grads

    # the dtypes are known without a run
    outputs, zeros, weights, grads = jax.eval_shape(everything)
    for end, y in outputs:
        chex.assert_type(y, dtype)
        chex.assert_type(jax.tree.leaves(end), state_dtype(dtype))
    chex.assert_type(jax.tree.leaves(zeros), state_dtype(dtype))
    chex.assert_type(jax.tree.leaves(weights), dtype)
    jax.tree.map(lambda g, a: chex.assert_type(g, a.dtype), grads, (params, x, state))


def weighted_float32(tree):
    return sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(tree))


@every_cell
def test_float32_is_close_to_the_equations(cell):
    sizes = {"batch": (2,), "T": 50, "D": 16, "H": 32}
    (params, x, state), wide = problem(cell, jnp.float32, **sizes)
    got = run(cell, params, x, state)
    # a few roundings in each of T steps, which a contracting state mostly forgets
    scale = max(1, np.abs(expected(cell, *wide)[1]).max())
    atol = 8 * np.finfo(np.float32).eps * np.sqrt(50) * scale
    chex.assert_trees_all_close(
        to_jax(got), to_jax(expected(cell, *wide)), rtol=0, atol=atol
    )


@every_cell
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_only_h_is_rounded_in_16_bits(cell, dtype):
    """Equal to the equations in float64 with h, and only h, rounded in the product.

    A step rounds nothing else, so the state differs by float32 roundings alone.
    """
    (params, x, state), wide = problem(cell, dtype, batch=(2,), T=1, D=16, H=32)
    end, y = jax.jit(cell.step)(params, state, x[:, 0])
    hidden = np.asarray(jax.tree.leaves(state)[0])
    rounded = hidden.astype(dtype).astype(np.float64)
    assert (rounded != hidden).any()
    want = one_step_with_rounded_h(cell, *wide, rounded)
    chex.assert_trees_all_close(to_jax(end), to_jax(want), rtol=3e-6, atol=3e-6)
    chex.assert_trees_all_equal(y, jax.tree.leaves(end)[0].astype(dtype))


def one_step_with_rounded_h(cell, params, x, state, rounded):
    """The equations with the recurrent product of `rounded` and the state's own h.

    z_x + rounded w_h is moved into the input, and h's product taken out of it by
    zero weights; the GRU, which keeps the two products apart, has it in b_hn.
    """
    ends = []
    for i in range(len(x)):
        take = lambda s, i=i: s[i]
        start = jax.tree.map(take, tuple(state) if isinstance(state, tuple) else state)
        z_h = rounded[i] @ params.w_h
        moved = params._replace(w_h=0 * params.w_h)
        if cell.params is jaxseq.GRUParams:
            r, z, n = np.split(z_h, 3)
            b = params.b + np.concatenate([r, z, 0 * n])
            moved = moved._replace(b=b, b_hn=params.b_hn + n)
        else:
            moved = moved._replace(b=params.b + z_h)
        ends.append(cell.reference(moved, start, x[i])[0])
    stacked = jax.tree.map(lambda *a: np.stack(a), *ends)
    return type(state)(*stacked) if isinstance(state, tuple) else stacked


@every_cell
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_pieces_equal_the_whole_in_16_bits(cell, dtype):
    (params, x, state), _ = problem(cell, dtype, batch=(2,), T=10, D=3, H=4)
    whole = run(cell, params, x, state)
    middle, y_1 = run(cell, params, x[:, :4], state)
    end, y_2 = run(cell, params, x[:, 4:], middle)
    # cut elsewhere, float32 sums round otherwise; and a 16-bit y may round on from it
    chex.assert_trees_all_close(end, whole[0], rtol=1e-6, atol=1e-7)
    y = jnp.concatenate([y_1, y_2], 1).astype(jnp.float32)
    chex.assert_trees_all_close(
        y, whole[1].astype(jnp.float32), atol=float(jnp.finfo(dtype).eps) / 2
    )


def test_cell_state_counts_past_the_16_bit_grid():
    """c grows by about 1 a step: 256 + 1 is 256 in bfloat16, so it must be wider."""
    big = 20.0
    b = jnp.array([big, big, big, big], jnp.bfloat16)  # all gates open, candidate 1
    params = jaxseq.LSTMParams(
        jnp.zeros((1, 4), jnp.bfloat16), jnp.zeros((1, 4), jnp.bfloat16), b
    )
    (_, c), _ = jaxseq.lstm(params, jnp.zeros((400, 1), jnp.bfloat16))
    np.testing.assert_allclose(c, 400, rtol=1e-6)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_gradients_are_summed_in_float32(dtype):
    """1000 equal terms: in bfloat16 a sum of ones stops at 256, in float16 at 2048."""
    T = 4000
    zeros = jnp.zeros((1, 1), dtype)
    params = jaxseq.RNNParams(zeros, zeros, jnp.zeros(1, dtype))
    x = jnp.ones((T, 1), dtype)

    def loss(params, x):
        _, y = jaxseq.rnn(params, x, activation=lambda z: z)
        return y.astype(jnp.float32).sum()

    grads = jax.jit(jax.grad(loss))(params, x)
    want = float(jnp.asarray(T, dtype))
    assert grads.b.astype(jnp.float32).item() == want
    assert grads.w_x.astype(jnp.float32).item() == want


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_gradient_reads_the_state_and_not_its_rounded_copy(dtype):
    """h is 1 + 2**-12 and the candidate 1: their difference is 0 on a 16-bit grid."""
    T, scale = 8, 1024
    zero = jnp.zeros((1, 3), dtype)
    b = jnp.array([0, 4, 20], dtype)  # the candidate is 1; the update gate is nearly so
    params = jaxseq.GRUParams(zero, zero, b, None)

    def loss(params):
        state, _ = jaxseq.gru(params, jnp.zeros((T, 1), dtype), h)
        return scale * state.sum()

    h = jnp.full(1, 1 + 2**-12, jnp.float32)
    z = 1 / (1 + np.exp(-4.0))
    want = scale * T * z**T * (1 - z) * 2**-12
    got = jax.jit(jax.grad(loss))(params).b.astype(jnp.float32)[1]
    np.testing.assert_allclose(got, want, rtol=2**-7)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_gradient_of_the_state_is_not_rounded_at_each_step(dtype):
    T = 4000
    ones, x = jnp.ones((1, 1), dtype), jnp.zeros((T, 1), dtype)
    params = jaxseq.RNNParams(0 * ones, ones, None)

    def loss(h):
        _, y = jaxseq.rnn(params, x, h, activation=lambda z: z)
        return y.astype(jnp.float32).sum()

    assert jax.jit(jax.grad(loss))(jnp.zeros(1, jnp.float32)).item() == T


def test_overflow_in_float16_is_infinite():
    """Not NaN: inf - inf is nowhere, in the step past the range or in any after."""
    ones, x = jnp.ones((1, 1), jnp.float16), jnp.zeros((20, 1), jnp.float16)
    params = jaxseq.RNNParams(0 * ones, 2 * ones, None)
    start = jnp.ones(1, jnp.float32)
    _, y = jaxseq.rnn(params, x, start, activation=jax.nn.relu)
    t = np.arange(1, 21)
    np.testing.assert_array_equal(y[:, 0], np.where(t < 16, 2.0**t, np.inf))


@every_cell
def test_numpy_float64_is_float32_without_x64(cell):
    problem = random_problem(cell, batch=(2,), T=4, D=3, H=4)
    params, x, state = problem
    with jax.enable_x64(False):
        params_32, x_32, state_32 = to_jax(problem, jnp.float32)
        got = cell.sequence(params, x, state)
        chex.assert_type(jax.tree.leaves(got), jnp.float32)
        chex.assert_trees_all_equal(got, cell.sequence(params_32, x_32, state_32))
        chex.assert_trees_all_equal(
            cell.step(params, state, x[:, 0]),
            cell.step(params_32, state_32, x_32[:, 0]),
        )


def test_lengths_of_any_integer_dtype_and_options_as_lists():
    cell = CELLS["rnn"]
    # more steps than the 8-bit dtypes can count
    params, x, state = random_problem(cell, batch=(3,), T=300, D=2, H=3)
    lengths = np.array([3, 0, 127])
    resets = np.random.default_rng(0).random((3, 300)) < 0.4
    read = lambda lengths: cell.sequence(
        params, x, state, lengths=lengths, resets=resets.tolist()
    )
    want = cell.sequence(params, x, state, lengths=lengths, resets=resets)
    for dtype in ("int8", "uint8", "int32", "uint32", "int64"):
        chex.assert_trees_all_equal(read(jnp.asarray(lengths, dtype)), want)
    chex.assert_trees_all_equal(read([3, 0, 127]), want)
    traced = jax.jit(lambda n: read([n, 0, 127]))(3)
    chex.assert_trees_all_close(traced, want, rtol=0, atol=1e-12)
    assert cell.sequence(params, x[:0], lengths=[])[1].shape == (0, 300, 3)


@partial(jax.jit, static_argnames="cell")
@partial(jax.grad, argnums=(1, 2, 3))
def gradients(cell, params, x, state):
    end, y = cell.sequence(params, x, state)
    y = y.astype(jnp.float64 if y.dtype == jnp.float64 else jnp.float32)
    rng = np.random.default_rng(0)
    weigh = lambda a: (a * rng.standard_normal(a.shape).astype(a.dtype)).sum()
    return weigh(y) + sum(map(weigh, jax.tree.leaves(end)))


@every_cell
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_16_bit_gradients_are_close_to_float64(cell, dtype):
    (params, x, state), wide = problem(cell, dtype, batch=(3,), T=12, D=8, H=16)

    got, want = (
        to_jax(gradients(cell, *problem)) for problem in ((params, x, state), wide)
    )
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # half an ulp of the 16-bit result and of each h that the product read
        assert (
            jnp.abs(g - w).max() <= 6 * float(jnp.finfo(dtype).eps) * jnp.abs(w).max()
        )


@pytest.mark.parametrize("backend", [CPU_LOOP, LOOP])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_the_recurrent_product_reads_the_state_rounded(dtype, backend):
    """By a product in float32 on CPUs, in 16 bits elsewhere."""
    one, x = jnp.ones((1, 1), dtype), jnp.zeros((1, 1, 1), dtype)
    state = jnp.full((1, 1), 1 + 2**-12, jnp.float32)
    args = parts(RNNUpdate(lambda z: z), (one, one, None), x, state)
    (end,), *_ = jax.jit(partial(backend.forward, ONE, args[0]))(*args[1:])
    assert end.item() == 1


def test_a_length_past_the_range_of_int32_is_clipped_before_it_is_narrowed():
    """A uint32 above 2**31 is a negative int32, which would be a length of 0."""
    params, x, state = random_problem(CELLS["rnn"], batch=(2,), T=4, D=2, H=3)
    run = lambda n: jaxseq.rnn(params, x, state, lengths=n)
    lengths = np.array([2**32 - 1, 2], np.uint32)
    got = jax.jit(run)(lengths)
    chex.assert_trees_all_equal(got, jax.jit(run)(np.array([4, 2], np.uint32)))


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_second_derivatives_of_a_linear_map(dtype):
    """By its input, its weights, and both, in either order."""
    rng = np.random.default_rng(0)
    args = tuple(jnp.asarray(rng.normal(size=s), dtype) for s in ((3, 2), (2, 2), (2,)))
    loss = lambda f: lambda *args: jnp.sin(f(*args).astype(jnp.float32)).sum()
    each = tuple(range(3))
    got = jax.jit(jax.hessian(loss(linear), each))(*args)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), args)
    want = jax.hessian(loss(lambda a, w, b: a @ w + b), each)(*wide)
    as_float = lambda tree: jax.tree.map(np.float32, tree)
    chex.assert_trees_all_close(as_float(got), as_float(want), rtol=0, atol=0.02)
    assert got[0][1].dtype == dtype


def test_gradients_of_weights_are_summed_in_float32():
    """Many terms, each of them below what the sum is rounded to in 16 bits."""
    n = 4096
    ones = jnp.ones((n, 1), jnp.bfloat16)
    w, at = jnp.zeros((1, 1), jnp.bfloat16), jnp.zeros(n, jnp.int32)
    total = lambda w: linear(ones, w).astype(jnp.float32).sum()
    assert jax.jit(jax.grad(total))(w) == n
    total = lambda w: rows(w, at).astype(jnp.float32).sum()
    assert jax.jit(jax.grad(total))(w) == n
