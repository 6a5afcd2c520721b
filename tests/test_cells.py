"""Every cell against its published equations, values and gradients, in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cells import (
    CELLS,
    assert_close,
    expected,
    random_problem,
    random_state,
    weighted_sum,
)

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
both_directions = pytest.mark.parametrize("reverse", [False, True])

LENGTHS = np.array([[0, 1, 7], [4, 6, 3]])
RESETS = np.random.default_rng(5).random((2, 3, 7)) < 0.3
RESETS[1, 0] = [True, False, True, False, True, True, False]  # length 4: both ends
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": RESETS},
    "both": {"lengths": LENGTHS, "resets": RESETS},
}


@every_cell
@both_directions
@pytest.mark.parametrize("T, D, H", [(1, 1, 1), (7, 5, 4), (33, 8, 16)])
def test_one_sequence_matches_equations(cell, T, D, H, reverse):
    params, x, state = random_problem(cell, T=T, D=D, H=H)
    got = jax.jit(cell.sequence, static_argnames="reverse")(
        params, x, state, reverse=reverse
    )
    assert_close(got, expected(cell, params, x, state, reverse=reverse))


@every_cell
@both_directions
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_batch_matches_equations(cell, options, reverse):
    params, x, state = random_problem(cell, batch=(2, 3), T=7, D=3, H=4)
    got = cell.sequence(params, x, state, reverse=reverse, **options)
    assert_close(got, expected(cell, params, x, state, reverse=reverse, **options))


@every_cell
def test_no_state_is_a_state_of_zeros(cell):
    params, x, state = random_problem(cell, batch=(2,), T=4, D=3, H=4)
    zeros = jax.tree.map(np.zeros_like, state)
    want = expected(cell, params, x, zeros)
    for implementation in (None, "scan"):
        assert_close(cell.sequence(params, x, implementation=implementation), want)
    chex.assert_trees_all_equal(cell.zeros(params, (2,)), zeros)


@every_cell
def test_step_is_a_scan_body(cell):
    params, x, state = random_problem(cell, batch=(2,), T=5, D=3, H=4)
    end, y = jax.lax.scan(
        lambda s, x_t: cell.step(params, s, x_t),
        jax.tree.map(jnp.asarray, state),
        x.swapaxes(0, 1),
    )
    assert_close((end, y.swapaxes(0, 1)), expected(cell, params, x, state))


@every_cell
@both_directions
@pytest.mark.parametrize("batch, T", [((), 0), ((3,), 0), ((0,), 4), ((2, 0), 4)])
def test_empty_inputs(cell, batch, T, reverse):
    params, x, state = random_problem(cell, batch=batch, T=T, D=3, H=4)
    options = {"lengths": np.zeros(batch, int), "resets": np.zeros((*batch, T), bool)}

    def loss(params, x, state):
        end, y = cell.sequence(params, x, state, reverse=reverse, **options)
        return weighted_sum((end, y))

    end, y = cell.sequence(params, x, state, reverse=reverse, **options)
    chex.assert_trees_all_equal(end, state)
    assert y.shape == (*batch, T, 4)
    grads = jax.grad(loss, argnums=(0, 1))(params, x, state)
    chex.assert_trees_all_equal(grads, jax.tree.map(np.zeros_like, (params, x)))


@every_cell
@both_directions
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_match_finite_differences_of_the_equations(cell, options, reverse):
    problem = random_problem(cell, batch=(2, 3), T=7, D=3, H=4)

    def loss(params, x, state):
        end, y = cell.sequence(params, x, state, reverse=reverse, **options)
        return weighted_sum((end, y))

    def reference_loss(problem):
        return weighted_sum(expected(cell, *problem, reverse=reverse, **options))

    grads = jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*problem))
    leaves, structure = jax.tree.flatten(problem)
    rng = np.random.default_rng(3)
    for k, grad in enumerate(grads):
        direction = rng.standard_normal(grad.shape)

        def along(step, k=k, direction=direction):
            moved = [*leaves[:k], leaves[k] + step * direction, *leaves[k + 1 :]]
            return reference_loss(jax.tree.unflatten(structure, moved))

        eps = 1e-4  # fourth order: the error is about eps^4 and 1e-16 / eps
        numerical = (
            8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))
        ) / (12 * eps)
        np.testing.assert_allclose((grad * direction).sum(), numerical, atol=1e-9)


@every_cell
@both_directions
def test_padding_reaches_neither_outputs_nor_gradients(cell, reverse):
    params, x, state = random_problem(cell, batch=(2, 3), T=7, D=3, H=4)
    padding = np.arange(7) >= LENGTHS[..., None]
    # the last valid steps of a segment read backwards are next to the padding
    options = {"lengths": LENGTHS, "resets": RESETS | padding, "reverse": reverse}

    def loss(params, x, state):
        return weighted_sum(cell.sequence(params, x, state, **options))

    @jax.jit
    def everything(x):
        grads = jax.grad(loss, argnums=(0, 1, 2))(params, x, state)
        return cell.sequence(params, x, state, **options), grads

    clean = everything(np.where(padding[..., None], 0, x))
    for junk in (np.nan, np.inf, -np.inf):
        dirty = everything(np.where(padding[..., None], junk, x))
        chex.assert_trees_all_equal(dirty, clean)
    (_, y), (_, dx, _) = clean
    assert not np.asarray(y)[padding].any()
    assert not np.asarray(dx)[padding].any()


@every_cell
@pytest.mark.parametrize("resets", [None, np.zeros((2, 4), bool)])
def test_junk_state_of_an_empty_sequence_reaches_no_weight_gradient(cell, resets):
    params, x, state = random_problem(cell, batch=(2,), T=4, D=3, H=4)
    options = {"lengths": np.array([0, 4]), "resets": resets}

    def loss(params, state):
        return cell.sequence(params, x, state, **options)[1].sum()

    junk = jax.tree.map(lambda s: np.where([[True], [False]], np.nan, s), state)
    grad = jax.grad(loss)
    chex.assert_trees_all_equal(grad(params, junk), grad(params, state))


@every_cell
def test_junk_state_before_a_reset_reaches_nothing(cell):
    params, x, state = random_problem(cell, T=4, D=3, H=4)
    resets = np.array([True, False, False, False])
    junk = jax.tree.map(lambda s: np.full_like(s, np.nan), state)

    def loss(params, state):
        return cell.sequence(params, x, state, resets=resets)[1].sum()

    value_and_grad = jax.value_and_grad(loss)
    chex.assert_trees_all_equal(
        value_and_grad(params, junk), value_and_grad(params, state)
    )


@every_cell
@both_directions
def test_pieces_of_a_stream_equal_the_whole(cell, reverse):
    params, x, state = random_problem(cell, batch=(2,), T=9, D=3, H=4)
    whole = cell.sequence(params, x, state, reverse=reverse)
    pieces = [x[:, :2], x[:, 2:3], x[:, 3:]]
    order = slice(None, None, -1 if reverse else 1)
    outputs = []
    for piece in pieces[order]:
        state, y = cell.sequence(params, piece, state, reverse=reverse)
        outputs.append(y)
    assert_close((state, np.concatenate(outputs[order], axis=1)), whole)


@every_cell
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shapes_lengths_and_resets(cell, data):
    batch = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2), "batch"))
    T, D, H = (
        data.draw(st.integers(low, 5), n) for low, n in [(0, "T"), (1, "D"), (1, "H")]
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    params, x, _ = random_problem(cell, batch=batch, T=T, D=D, H=H)
    state = random_state(cell, rng, (*batch, H))
    options = {"reverse": data.draw(st.booleans(), "reverse")}
    if data.draw(st.booleans(), "with lengths"):
        options["lengths"] = rng.integers(0, T + 1, batch)
    if data.draw(st.booleans(), "with resets"):
        options["resets"] = rng.random((*batch, T)) < 0.4
    got = cell.sequence(params, x, state, **options)
    assert_close(got, expected(cell, params, x, state, **options))
