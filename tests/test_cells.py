"""Every cell against its published equations, values and gradients, in float64."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxseq
from tests import reference
from tests.cells import (
    BATCH,
    CELLS,
    EVERYTHING,
    assert_close,
    assert_slopes,
    both_directions,
    every_cell,
    expected,
    random_problem,
    run,
    run_and_gradients,
    weighted_sum,
)

T = 5  # a chunk of the gradient, and a step more
LENGTHS = np.array([[0, 1, 5], [4, 3, 2]])
RESETS = np.random.default_rng(5).random((2, 3, T)) < 0.3
RESETS[1, 0] = [True, False, True, True, True]  # length 4: both ends
FULL, NO_RESETS = np.full((2, 3), T), np.zeros((2, 3, T), bool)
OPTIONS = {
    "plain": {},  # the others share a program
    "lengths": {"lengths": LENGTHS, "resets": NO_RESETS},
    "resets": {"lengths": FULL, "resets": RESETS},
    "both": {"lengths": LENGTHS, "resets": RESETS},
}


@every_cell
@both_directions
@pytest.mark.parametrize("T, D, H", [(1, 1, 1), (7, 5, 4), (33, 8, 16)])
def test_one_sequence_matches_equations(cell, T, D, H, reverse):
    params, x, state = random_problem(cell, T=T, D=D, H=H)
    got = run(cell, params, x, state, reverse=reverse)
    assert_close(got, expected(cell, params, x, state, reverse=reverse))


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


@pytest.mark.every(5)
@every_cell
@both_directions
@pytest.mark.parametrize("batch, T", [((), 0), ((3,), 0), ((0,), 4), ((2, 0), 4)])
def test_empty_inputs(cell, batch, T, reverse):
    params, x, state = random_problem(cell, batch=batch, T=T, D=3, H=4)
    options = {"lengths": np.zeros(batch, int), "resets": np.zeros((*batch, T), bool)}
    got = run_and_gradients(cell, params, x, state, reverse=reverse, **options)
    (end, y), (d_params, d_x, _) = got
    chex.assert_trees_all_equal(end, state)
    assert y.shape == (*batch, T, 4)
    chex.assert_trees_all_equal(
        (d_params, d_x), jax.tree.map(np.zeros_like, (params, x))
    )


@pytest.mark.every(5)
@every_cell
@both_directions
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_batch_matches_equations_and_gradients_their_finite_differences(
    cell, options, reverse
):
    options = {"reverse": reverse, **options}
    problem = random_problem(cell, batch=(2, 3), T=T, D=3, H=4)
    outputs, gradients = run_and_gradients(cell, *problem, **options)
    want = expected(cell, *problem, **options)
    assert_close(outputs, want)
    assert_close(run(cell, *problem, **options), want)
    assert_slopes(cell, problem, gradients, **options)


@every_cell
@both_directions
def test_padding_reaches_neither_outputs_nor_gradients(cell, reverse):
    params, x, state = random_problem(cell, batch=(2, 3), T=T, D=3, H=4)
    padding = np.arange(T) >= LENGTHS[..., None]
    # the last valid steps of a segment read backwards are next to the padding
    options = {"lengths": LENGTHS, "resets": RESETS | padding, "reverse": reverse}

    def everything(junk):
        problem = params, np.where(padding[..., None], junk, x), state
        outputs = run(cell, *problem, **options)
        return outputs, *run_and_gradients(cell, *problem, **options)

    clean = everything(0.0)
    for junk in (np.nan, np.inf, -np.inf):
        chex.assert_trees_all_equal(everything(junk), clean)
    (_, y), _, (_, dx, _) = clean
    assert not np.asarray(y)[padding].any()
    assert not np.asarray(dx)[padding].any()


@pytest.mark.every(5)
@every_cell
@both_directions
@pytest.mark.parametrize("name", ["lengths", "resets"])
def test_one_option_alone(cell, name, reverse):
    problem = random_problem(cell, batch=(2, 3), T=T, D=3, H=4)
    option = {name: OPTIONS["both"][name]}
    want = run_and_gradients(cell, *problem, reverse=reverse, **OPTIONS[name])
    got = run_and_gradients(cell, *problem, reverse=reverse, **option)
    assert_close(got, want)


@every_cell
@pytest.mark.parametrize("resets", [None, NO_RESETS])
def test_junk_state_of_an_empty_sequence_reaches_no_weight_gradient(cell, resets):
    params, x, state = random_problem(cell, batch=(2, 3), T=T, D=3, H=4)
    empty = LENGTHS[..., None] == 0
    junk = jax.tree.map(lambda s: np.where(empty, np.nan, s), state)
    options = {"lengths": LENGTHS, "resets": resets, "reverse": False}
    got, want = (
        run_and_gradients(cell, params, x, s, **options) for s in (junk, state)
    )
    chex.assert_trees_all_equal(got[0][1], want[0][1])
    chex.assert_trees_all_equal(got[1][:2], want[1][:2])


@every_cell
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_junk_state_before_a_reset_reaches_nothing(cell, batch):
    params, x, state = random_problem(cell, batch=batch, T=T, D=3, H=4)
    resets = (RESETS if batch else RESETS[0, 1]).copy()
    resets[..., 0] = True
    junk = jax.tree.map(lambda s: np.full_like(s, np.nan), state)
    got, want = (
        run_and_gradients(cell, params, x, s, resets=resets, reverse=False)
        for s in (junk, state)
    )
    chex.assert_trees_all_equal(got, want)


@every_cell
@both_directions
def test_pieces_of_a_stream_equal_the_whole(cell, reverse):
    params, x, state = random_problem(cell, batch=(2,), T=9, D=3, H=4)
    whole = run(cell, params, x, state, reverse=reverse)
    pieces = [x[:, :2], x[:, 2:3], x[:, 3:]]
    order = slice(None, None, -1 if reverse else 1)
    outputs = []
    for piece in pieces[order]:
        state, y = run(cell, params, piece, state, reverse=reverse)
        outputs.append(y)
    assert_close((state, np.concatenate(outputs[order], axis=1)), whole)


SHAPES = [((), 1, 1, 1), ((3,), 5, 1, 2), ((2, 3), 7, 3, 4), ((1,), 4, 3, 5)]


@every_cell
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_lengths_and_resets(cell, data):
    batch, T, D, H = data.draw(st.sampled_from(SHAPES), "batch, T, D, H")
    seed = data.draw(st.integers(0, 99), "seed")
    problem = random_problem(cell, batch=batch, T=T, D=D, H=H, seed=seed)
    rng = np.random.default_rng(seed)
    options = {
        "lengths": rng.integers(0, T + 1, batch),
        "resets": rng.random((*batch, T)) < data.draw(st.floats(0, 1), "resets"),
        "reverse": data.draw(st.booleans(), "reverse"),
    }
    got = run(cell, *problem, **options)
    assert_close(got, expected(cell, *problem, **options))


@every_cell
@pytest.mark.parametrize(
    "batch, T, D, H, names, reverse",
    [
        ((), 0, 1, 1, (), False),
        ((), 5, 2, 1, ("lengths",), True),
        ((0,), 3, 4, 2, ("resets",), False),
        ((1,), 1, 5, 5, ("lengths", "resets"), True),
        ((3, 0), 2, 3, 4, (), True),
        ((2, 1), 0, 5, 3, ("lengths", "resets"), False),
        ((3, 3), 4, 1, 3, ("resets",), True),
        ((1, 2), 5, 3, 2, ("lengths",), False),
    ],
)
def test_odd_shapes(cell, batch, T, D, H, names, reverse):
    problem = random_problem(cell, batch=batch, T=T, D=D, H=H)
    rng = np.random.default_rng(1)
    drawn = {
        "lengths": rng.integers(0, T + 1, batch),
        "resets": rng.random((*batch, T)) < 0.4,
    }
    options = {"reverse": reverse, **{name: drawn[name] for name in names}}
    got = run(cell, *problem, **options)
    assert_close(got, expected(cell, *problem, **options))


@every_cell
def test_a_start_that_no_reset_reads(cell):
    """It is where the run begins if there is no state, and else has no gradient."""
    params, x, state = random_problem(cell, batch=(2,), T=3, D=3, H=4)
    start = jax.tree.map(lambda a: jnp.asarray(a[0]), state)

    def loss(params, start, state):
        return weighted_sum(cell.sequence(params, x, state, start=start))

    both = jax.tree.map(jnp.zeros_like, start)
    chex.assert_trees_all_equal(jax.grad(loss, 1)(params, start, state), both)
    rows = lambda start: jax.tree.map(lambda a: jnp.stack([a, a]), start)
    want = jax.grad(lambda s: loss(params, None, rows(s)))(start)
    assert_close(jax.grad(loss, 1)(params, start, None), want)


LSTM = CELLS["lstm"]
MASK = np.random.default_rng(6).random((2, 3, T)) < 0.7
STATES = {
    "plain": {},
    "reset": {"resets": RESETS},
    "padded": {"lengths": LENGTHS, "mask": MASK, "resets": RESETS},
}


def expected_states(
    problem, start, lengths=None, mask=None, resets=None, reverse=False
):
    """Of `lstm_states`, by the equations, one sequence after the other."""
    params, x, state = problem
    *batch, steps, _ = x.shape
    lengths = np.full(batch, steps) if lengths is None else lengths
    valid = np.arange(steps) < lengths[..., None]
    valid = valid if mask is None else valid & mask
    resets = np.zeros_like(valid) if resets is None else resets
    h, c = np.zeros((2, *batch, steps, state.h.shape[-1]))
    for i in np.ndindex(*batch):
        row, begin = (tuple(a[i] for a in s) for s in (state, start))
        found = reference.states(
            reference.lstm, params, row, x[i], valid[i], resets[i], reverse, begin
        )
        h[i], c[i] = map(np.array, zip(*found, strict=True))
    return jaxseq.LSTMState(h, c)


@jax.jit(static_argnames="reverse")
def states_and_gradients(problem, start, **options):
    def loss(args):
        (params, x, state), start = args
        found = jaxseq.lstm_states(params, x, state, start=start, **options)
        return weighted_sum(found), found

    return jax.grad(loss, has_aux=True)((problem, start))


@both_directions
@pytest.mark.parametrize("options", STATES.values(), ids=STATES)
def test_states_match_equations_and_gradients_their_finite_differences(
    options, reverse
):
    problem = random_problem(LSTM, batch=(2, 3), T=T, D=3, H=4)
    start = random_problem(LSTM, batch=(2, 3), T=T, D=3, H=4, seed=1)[2]
    options = {"reverse": reverse, **options}
    gradients, found = states_and_gradients(problem, start, **options)
    assert_close(found, expected_states(problem, start, **options))
    leaves, tree = jax.tree.flatten((problem, start))
    rng = np.random.default_rng(3)
    directions = [rng.standard_normal(a.shape) for a in leaves]

    def along(step):
        moved = [a + step * d for a, d in zip(leaves, directions, strict=True)]
        return weighted_sum(expected_states(*tree.unflatten(moved), **options))

    eps = 1e-4
    numerical = 8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))
    pairs = zip(jax.tree.leaves(gradients), directions, strict=True)
    total = sum((g * d).sum() for g, d in pairs)
    np.testing.assert_allclose(total, numerical / (12 * eps), atol=1e-8)


def test_states_of_a_cell_are_those_of_its_steps():
    """In the 16-bit dtypes too, where all of them are float32; padding is not read."""
    params = jaxseq.gru_init(jax.random.key(0), 3, 4, dtype=jnp.bfloat16)
    params, update = jaxseq.CellParams(*params), jaxseq.GRU.update
    x = jax.random.normal(jax.random.key(1), (2, T, 3), jnp.bfloat16)
    x, lengths = x.at[1, 3:].set(jnp.nan), np.array([T, 3])
    run = jax.jit(
        lambda params, x: jaxseq.cell_states(
            update, params, x, zeros=4, lengths=lengths
        )
    )
    found, h = run(params, x), jaxseq.cell_zeros(4, 2)
    for t in range(T):
        new, _ = jaxseq.cell_step(update, params, h, x[:, t])
        h = jnp.where(t < lengths[:, None], new, h)
        np.testing.assert_allclose(found[:, t], h, atol=1e-6)
    assert found.dtype == jnp.float32
    gradients = jax.grad(lambda *args: run(*args).sum(), (0, 1))(params, x)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


@every_cell
def test_rollouts_with_time_first(cell):
    """By `jax.vmap`, as the docstrings say."""
    params, x, _ = random_problem(cell, batch=(2,), T=T, D=3, H=4)
    resets = RESETS[0, :2]
    run = lambda x, resets: cell.sequence(params, x, resets=resets)
    by_time = jax.jit(jax.vmap(run, in_axes=1, out_axes=(0, 1)))
    end, y = by_time(x.swapaxes(0, 1), resets.swapaxes(0, 1))
    assert_close((end, y.swapaxes(0, 1)), run(x, resets))


def apart(params, gates):
    """The same weights with the gates as an axis."""
    H = params.w_h.shape[0]
    one = lambda w: w if w.shape == (H,) else w.reshape(*w.shape[:-1], gates, H)
    return jax.tree.map(one, params)


gated_cells = pytest.mark.parametrize("name", ["lstm", "gru"])


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@gated_cells
def test_gates_as_an_axis(name, options):
    cell = CELLS[name]
    params, x, state = random_problem(cell, batch=BATCH, T=5, D=3, H=4)
    split = apart(params, cell.gates)
    got = run_and_gradients(cell, split, x, state, **options)
    want = run_and_gradients(cell, params, x, state, **options)
    back = lambda a, like: a.reshape(jnp.shape(like))
    assert_close(jax.tree.map(back, got, want), want)
    step = lambda params: cell.step(params, state, x[..., 0, :])
    assert_close(step(split), step(params))
    chex.assert_trees_all_equal(cell.zeros(split, 2), cell.zeros(params, 2))


@gated_cells
def test_gates_as_an_axis_wherever_a_cell_is_run(name):
    cell = CELLS[name]
    params, x, _ = random_problem(cell, batch=BATCH, T=5, D=3, H=4)
    own = {"lstm": jaxseq.LSTM, "gru": jaxseq.GRU}[name]
    rates = {"recurrent_dropout": 0.4, "zoneout": 0.3, "key": jax.random.key(0)}

    @jax.jit
    def every_way(params):
        run = partial(cell.sequence, params)
        drop = partial(jaxseq.cell_dropout, x=x, params=params, **EVERYTHING)
        found = {
            "training": drop(own, **rates),
            "evaluation": drop(own, zoneout=0.3, deterministic=True),
            "zoneout": drop(jaxseq.zoneout(own, 0.3)),
            "both": jaxseq.bidirectional(run, run, x, lengths=EVERYTHING["lengths"]),
        }
        if name == "lstm":
            found["states"] = jaxseq.lstm_states(params, x, **EVERYTHING)
        return found

    assert_close(every_way(apart(params, cell.gates)), every_way(params))


@gated_cells
def test_gates_as_an_axis_in_16_bits(name):
    cell = CELLS[name]
    params, x, _ = random_problem(cell, batch=BATCH, T=5, D=3, H=4)
    params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (params, x))
    _, got = run(cell, apart(params, cell.gates), x)
    _, want = run(cell, params, x)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.float32(a) for a in (got, want)), atol=2**-7)


@gated_cells
def test_gates_as_an_axis_compile_once(name, caplog):
    cell = CELLS[name]
    params, x, _ = random_problem(cell, batch=BATCH, T=5, D=3, H=4)
    split = jax.tree.map(jnp.asarray, apart(params, cell.gates))
    x = jnp.asarray(x)
    with jax.log_compiles():
        cell.sequence(split, x)
        caplog.clear()
        cell.sequence(split, x)
    assert "Compiling" not in caplog.text


def test_an_axis_of_gates_that_does_not_fit():
    cell = CELLS["lstm"]
    params, x, _ = random_problem(cell, batch=BATCH, T=5, D=3, H=4)
    split = apart(params, 4)
    run = partial(jaxseq.cell_dropout, jaxseq.LSTM, x=x)
    text = r"params.w_h: expected an axis of 4 gates, as w_x \(3, 4, 4\), got \(4, 16\)"
    with pytest.raises(ValueError, match=text):
        run(split._replace(w_h=params.w_h))
    with pytest.raises(ValueError, match=r"params.b: expected an axis of 4 gates"):
        run(split._replace(b=params.b))
    own = jaxseq.LSTM._replace(update=lambda z_x, state, w_h, extra: state)
    with pytest.raises(ValueError, match="only the built-in LSTM and GRU"):
        jaxseq.cell_dropout(own, split, x)
    with pytest.raises(ValueError, match=r"params.w_x: expected shape \(D, Z\)"):
        zeros = jaxseq.lstm_zeros(params, BATCH)
        jaxseq.cell(jaxseq.LSTM.update, jaxseq.CellParams(*split), x, zeros)
