"""`jaxseq.nn.over_time`: NNX cells over time, against loops over rows and steps."""

from functools import partial

import chex
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxseq.nn import over_time
from tests.cells import assert_close
from tests.over_time import (
    LENGTHS,
    MASK,
    RESETS,
    VALID,
    B,
    D,
    H,
    T,
    X,
    by_hand,
    rows_summed,
    total,
)

F64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
MASKED = {"lengths": LENGTHS, "mask": MASK, "resets": RESETS}


class Wave(nnx.Module):
    """A cell of one's own: a dict for a state, two outputs, no initialize_carry."""

    def __init__(self, rngs):
        self.w = nnx.Param(rngs.normal((D + H, H), jnp.float64))

    def __call__(self, state, x):
        h = jnp.sin(jnp.concatenate([x, state["h"]], -1) @ self.w)
        return {"h": h, "n": state["n"] + 1}, (h, state["n"])


class Waves(Wave):
    def initialize_carry(self, shape, rngs):
        h = jnp.full((*shape[:-1], H), 0.5)
        return {"h": h, "n": jnp.zeros(shape[:-1], jnp.int32)}


def made(kind):
    return kind(D, H, **F64, rngs=nnx.Rngs(1))


CELLS = {
    kind.__name__: partial(made, kind)
    for kind in (nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell)
}
CELLS["own"] = lambda: Waves(nnx.Rngs(1))


def begun(cell, B=B):
    return cell.initialize_carry((B, D), nnx.Rngs(0))


def compared(cell, *runs, x=X):
    """Of each run of the cell what it gives, and gradients by weights and inputs."""
    graph, weights = nnx.split(cell)

    @jax.jit
    def both(weights, x):
        def loss(weights, x, run):
            out = run(nnx.merge(graph, weights), x)
            return total(out), out

        with_gradients = jax.grad(loss, (0, 1), has_aux=True)
        return [with_gradients(weights, x, run) for run in runs]

    return both(weights, x)


@pytest.mark.every(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_equals_steps_by_hand(name, reverse):
    """With lengths, masks and resets; the number that a state may hold has no loss."""
    cell = CELLS[name]()
    floats = lambda tree: [a for a in jax.tree.leaves(tree) if a.dtype == jnp.float64]

    def ours(cell, x):
        return floats(over_time(cell, x, **MASKED, reverse=reverse))

    def by_steps(cell, x):
        start = begun(cell)
        return floats(by_hand(cell, start, x, start, reverse=reverse))

    assert_close(*compared(cell, ours, by_steps))


def test_parts_that_are_no_floats():
    cell = CELLS["own"]()
    start = begun(cell)
    want = by_hand(cell, start, X, start)
    assert_close(over_time(cell, X, **MASKED), want)


@pytest.mark.parametrize("lengths", [None, np.array([T, 1, 3])])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_rnn_of_flax(reverse, lengths):
    """Which goes on past the lengths, where outputs are zero here."""
    valid = np.arange(T) < (lengths[:, None] if lengths is not None else T)

    def theirs(cell, x):
        how = {"return_carry": True, "reverse": reverse, "keep_order": True}
        state, y = nnx.RNN(cell, **how)(x, seq_lengths=lengths)
        return state, jnp.where(valid[..., None], y, 0)

    ours = partial(over_time, lengths=lengths, reverse=reverse)
    assert_close(*compared(CELLS["LSTMCell"](), ours, theirs))


def test_a_random_first_state_is_that_of_the_rnn_of_flax():
    class Drawn(nnx.GRUCell):
        def initialize_carry(self, *args):
            return super().initialize_carry(*args, nnx.initializers.normal(1.0))

    cell = made(Drawn)
    want = nnx.RNN(cell, return_carry=True)(X)
    assert_close(over_time(cell, X), want)


def test_from_a_state_with_resets_to_the_first_one():
    cell = CELLS["own"]()
    state = jax.tree.map(lambda a: 3 * a + 2, begun(cell))
    want = by_hand(cell, begun(cell), X, state)
    assert_close(over_time(cell, X, state, **MASKED), want)
    as_numpy = jax.tree.map(np.asarray, state)
    assert_close(over_time(cell, X, as_numpy, **MASKED), want)


def test_pieces_are_the_whole():
    cell = CELLS["GRUCell"]()
    state, y = over_time(cell, X, resets=RESETS)
    half, first = over_time(cell, X[:, :2], resets=RESETS[:, :2])
    end, second = over_time(cell, X[:, 2:], half, resets=RESETS[:, 2:])
    assert_close((end, jnp.concatenate([first, second], 1)), (state, y))


@pytest.mark.parametrize("reverse", [False, True])
def test_time_major(reverse):
    cell = CELLS["LSTMCell"]()
    state, y = over_time(cell, X, **MASKED, reverse=reverse)
    x, mask, resets = (a.swapaxes(0, 1) for a in (X, MASK, RESETS))
    how = {"lengths": LENGTHS, "mask": mask, "resets": resets, "time_major": True}
    assert_close(over_time(cell, x, **how, reverse=reverse), (state, y.swapaxes(0, 1)))


@pytest.mark.every(2)
@pytest.mark.parametrize("reverse", [False, True])
def test_remat(reverse):
    """Also of what the cell writes."""
    cells = [Noisy(nnx.Rngs(0)) for _ in range(2)]

    def gradient(cell, remat):
        def loss(cell):
            out = over_time(cell, X, **MASKED, reverse=reverse, remat=remat)
            return total((out, cell.mean[...]))

        return nnx.grad(loss)(cell)

    run = nnx.jit(gradient, static_argnums=1)
    got, want = (run(cell, remat) for cell, remat in zip(cells, (2, None), strict=True))
    assert_close(jax.tree.leaves(got), jax.tree.leaves(want))
    assert cells[0].dropout.rngs.count[...] == T
    assert_close(cells[0].mean[...], cells[1].mean[...])
    cell = CELLS["GRUCell"]()
    run = lambda n: jax.make_jaxpr(lambda x: over_time(cell, x, remat=n))(X)
    assert str(run(2)).count("prevent_cse") > str(run(None)).count("prevent_cse") == 0


@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_any_batch(batch):
    cell = CELLS["GRUCell"]()
    x = np.random.default_rng(3).standard_normal((*batch, T, D))
    resets = np.random.default_rng(4).random((*batch, T)) < 0.4
    state, y = over_time(cell, x, resets=resets)
    rows = x.reshape(-1, T, D), resets.reshape(-1, T)
    want = over_time(cell, rows[0], resets=rows[1])
    assert state.shape == (*batch, H) and y.shape == (*batch, T, H)
    assert_close((state.reshape(-1, H), y.reshape(-1, T, H)), want)


def test_no_steps():
    cell = CELLS["LSTMCell"]()
    state, y = over_time(cell, X[:, :0], lengths=np.zeros(B, int))
    assert_close(state, begun(cell))
    assert y.shape == (B, 0, H)


class OwnBegin(Wave):
    def initialize_carry(self, rows):
        return jnp.zeros((rows, H))


@pytest.mark.parametrize("kind", [Wave, OwnBegin])
def test_a_cell_without_initialize_carry_or_with_one_of_its_own(kind):
    state = begun(CELLS["own"]())
    want = over_time(CELLS["own"](), X, state, lengths=LENGTHS)
    assert_close(over_time(kind(nnx.Rngs(1)), X, state, lengths=LENGTHS), want)


def test_a_tree_of_inputs():
    class Two(nnx.Module):
        def __init__(self):
            self.gru = CELLS["GRUCell"]()

        def initialize_carry(self, shape, rngs):
            return jnp.ones((*shape["a"][:-1], H))

        def __call__(self, state, x):
            return self.gru(state, x["a"] + x["b"])

    cell, state = Two(), jnp.ones((B, H))
    got = over_time(cell, {"a": X, "b": 2 * X}, mask=MASK)
    assert_close(got, over_time(cell.gru, 3 * X, state, mask=MASK))


class Noisy(nnx.Module):
    """What a cell may write: a count of random keys, and running statistics."""

    def __init__(self, rngs):
        self.gru = nnx.GRUCell(D, H, **F64, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.mean = nnx.BatchStat(jnp.zeros(H))
        self.use_running_average = False

    def initialize_carry(self, shape, rngs):
        return self.gru.initialize_carry(shape, rngs)

    def __call__(self, h, x):
        h, y = self.gru(h, x)
        y = self.dropout(y)
        if not self.use_running_average:
            self.mean[...] = 0.9 * self.mean + 0.1 * y.mean(0)
        return h, y - self.mean


@pytest.mark.parametrize("masked", [False, True])
def test_what_the_cell_writes(masked):
    """It is that of the cell's calls one after the other, and a second run goes on."""
    ours, by_steps = (Noisy(nnx.Rngs(0)) for _ in range(2))
    run = nnx.jit(partial(over_time, **({"mask": MASK} if masked else {})))
    valid = MASK if masked else np.ones_like(MASK)
    for _ in range(2):
        state, y = run(ours, X)
        h, outputs = begun(by_steps), []
        for t in range(T):
            keep = valid[:, t, None]
            new, out = by_steps(h, jnp.where(keep, X[:, t], 0))
            h = jnp.where(keep, new, h)
            outputs.append(jnp.where(keep, out, 0))
        assert_close((state, y), (h, jnp.stack(outputs, 1)))
    assert ours.dropout.rngs.count[...] == 2 * T
    assert_close(ours.mean[...], by_steps.mean[...])
    assert np.ptp(ours.mean[...]) > 0


def test_gradients_through_what_the_cell_writes():
    """Of statistics on their way from step to step, and under nnx.grad."""

    def loss(cell, run):
        state, y = run(cell)
        return total((state, y, cell.mean[...]))

    def by_steps(cell):
        h, outputs = begun(cell), []
        for t in range(T):
            h, y = cell(h, X[:, t])
            outputs.append(y)
        return h, jnp.stack(outputs, 1)

    cells = [Noisy(nnx.Rngs(0)) for _ in range(2)]
    runs = lambda cell: over_time(cell, X), by_steps
    grad = nnx.jit(nnx.grad(loss), static_argnums=1)
    got, want = (grad(cell, run) for cell, run in zip(cells, runs, strict=True))
    assert_close(jax.tree.leaves(got), jax.tree.leaves(want))


def test_a_cell_that_writes_nothing_may_be_closed_over():
    """And one that would, once it is told not to."""
    cell = Noisy(nnx.Rngs(0))
    cell.eval()
    want = over_time(cell, X)
    assert_close(jax.jit(lambda x: over_time(cell, x))(X), want)
    assert_close(jax.vmap(lambda x: over_time(cell, x))(X), want)


def test_vmap_over_rows_and_over_members():
    cell = CELLS["LSTMCell"]()
    want = over_time(cell, X, resets=RESETS)
    by_row = jax.vmap(lambda x, resets: over_time(cell, x, resets=resets))
    assert_close(by_row(X, RESETS), want)

    @nnx.vmap
    def make(key):
        return nnx.GRUCell(D, H, **F64, rngs=nnx.Rngs(key))

    keys = jax.random.split(jax.random.key(0), 2)
    run = nnx.vmap(
        lambda cell, x: over_time(cell, x, lengths=LENGTHS), in_axes=(0, None)
    )
    state, y = nnx.jit(run)(make(keys), X)
    for i, key in enumerate(keys):
        alone = nnx.GRUCell(D, H, **F64, rngs=nnx.Rngs(key))
        assert_close((state[i], y[i]), over_time(alone, X, lengths=LENGTHS))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_are_those_of_the_cell(dtype):
    how = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(1)}
    drawn = nnx.initializers.lecun_normal()  # others need more bits
    x = X.astype(dtype)
    for kind in (nnx.GRUCell, nnx.LSTMCell):
        cell = kind(D, H, recurrent_kernel_init=drawn, **how)
        steps = jax.jit(lambda x, cell=cell: jax.lax.scan(cell, begun(cell), x))
        state, y = steps(x.swapaxes(0, 1))
        got = over_time(cell, x)
        chex.assert_type(jax.tree.leaves(got), dtype)
        close = partial(chex.assert_trees_all_close, atol=8 * jnp.finfo(dtype).eps)
        close(got, (state, y.swapaxes(0, 1)))


def test_nan_in_the_padding_reaches_nothing():
    x = np.where(VALID[..., None], X, np.nan)
    run = partial(over_time, lengths=LENGTHS, mask=MASK)
    got = compared(CELLS["LSTMCell"](), run, x=x)
    assert_close(got, compared(CELLS["LSTMCell"](), run))


def test_gradients_of_weights_are_made_after_the_loop():
    graph, weights = nnx.split(CELLS["OptimizedLSTMCell"]())
    loss = lambda run: lambda w: total(run(nnx.merge(graph, w), X))
    run = partial(over_time, lengths=LENGTHS, resets=RESETS)
    assert rows_summed(loss(run), weights) == {B * T}
    assert rows_summed(loss(lambda cell, x: nnx.RNN(cell)(x)), weights) == {B}


def test_a_second_call_compiles_nothing(caplog):
    cell = Noisy(nnx.Rngs(0))
    over_time(cell, X, lengths=LENGTHS)
    cell.gru.dense_i.bias[...] += 1.0
    with jax.log_compiles():
        over_time(cell, X, lengths=LENGTHS)
    compiled = [r.getMessage() for r in caplog.records if "_run" in r.getMessage()]
    assert not compiled


class Growing(Wave):
    def __call__(self, state, x):
        self.seen = nnx.Variable(x)
        return super().__call__(state, x)


class Counting(Wave):
    calls = 0

    def __call__(self, state, x):
        self.calls += 1
        return super().__call__(state, x)


class Single(nnx.Module):
    """One result, and not a pair."""

    def __call__(self, state, x):
        return state + x


class Lonely(nnx.Module):
    """One output for all rows."""

    def initialize_carry(self, shape, rngs):
        return jnp.zeros(shape)

    def __call__(self, state, x):
        return state + x, x.sum()


def test_errors_name_the_argument():
    cell, own = CELLS["LSTMCell"](), CELLS["own"]()
    state = begun(own)
    scalar = {"h": state["h"], "n": jnp.int32(0)}
    changes = r"^cell: expected a module whose call changes values of its variables"
    for match, call in {
        r"^cell: expected an nnx.Module .* got function": lambda: over_time(begun, X),
        r"^cell: .* jaxseq.linen.over_time\), got flax.linen.*GRUCell$": lambda: (
            over_time(flax.linen.GRUCell(H), X)
        ),
        r"^cell: expected a module .* cell\(state, x_t\).*\.Linear": lambda: over_time(
            nnx.Linear(D, D, rngs=nnx.Rngs(0)), X, X[:, 0]
        ),
        r"^cell: expected .* \(state, y_t\), got float64\[3,2\]": lambda: over_time(
            Single(), X, X[:, 0]
        ),
        r"^cell: expected a module with initialize_carry": lambda: over_time(
            Wave(nnx.Rngs(0)), X
        ),
        r"^cell: expected a module with .*, got Wave": lambda: over_time(
            Wave(nnx.Rngs(0)), X, state, resets=RESETS
        ),
        changes + " alone, got Growing": lambda: over_time(
            Growing(nnx.Rngs(0)), X, state
        ),
        changes + " alone, got Counting": lambda: over_time(
            Counting(nnx.Rngs(0)), X, state
        ),
        r"^cell: expected outputs with axes \(3,\) in front.*\(\)": lambda: over_time(
            Lonely(), X, lengths=LENGTHS
        ),
        r"^state: expected parts with axes \(3,\).* got \(\)": lambda: over_time(
            Wave(nnx.Rngs(0)), X, scalar, mask=MASK
        ),
        r"^state: expected PyTreeDef.*, got ": lambda: over_time(cell, X, X[:, 0]),
        r"^state: expected shape \(3, 4\), got \(3, 2\)": lambda: over_time(
            cell, X, (X[:, 0], X[:, 0])
        ),
        r"^x: expected shape \(\.\.\., T, D\), got \(2,\)": lambda: over_time(
            cell, X[0, 0]
        ),
        r"^x: expected shape \(T, \.\.\., D\)": lambda: over_time(
            cell, X[0, 0], time_major=True
        ),
        r"^x: expected parts that begin \(3, 5\), got \(3, 4, 2\)": lambda: over_time(
            own, (X, X[:, 1:])
        ),
        r"^x: expected an array, got dict": lambda: over_time(cell, {}),
        r"^lengths: expected values from 0 to 5, got 6": lambda: over_time(
            cell, X, lengths=[6, 0, 0]
        ),
        r"^mask: expected shape \(3, 5\), got \(5, 3\)": lambda: over_time(
            cell, X, mask=MASK.T
        ),
        r"^resets: expected shape \(5, 3\), got \(3, 5\)": lambda: over_time(
            cell, X.swapaxes(0, 1), resets=RESETS, time_major=True
        ),
        r"^reverse: expected True or False": lambda: over_time(cell, X, reverse=1),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


def test_errors_of_the_cell_say_what_it_was_given():
    wide = np.concatenate([X, X], -1)
    with pytest.raises(TypeError, match="dot_general") as caught:
        over_time(CELLS["LSTMCell"](), wide)
    state = "a state (float64[3,4], float64[3,4])"
    note = f"the cell was given {state} and x_t float64[3,4]"
    assert note in caught.value.__notes__

    class Options(nnx.Module):
        def __call__(self, *args):
            raise TypeError("of its own")

    with pytest.raises(TypeError, match=r"^of its own") as caught:
        over_time(Options(), {"a": X}, X[:, 0])
    assert "x_t {a: float64[3,2]}" in caught.value.__notes__[0]
