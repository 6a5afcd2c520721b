"""`jaxseq.linen` against `nn.scan`, `nn.RNN`, and loops over rows and steps."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import ScopeParamShapeError

from jaxseq.linen import over_time, scan
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
KEY = jax.random.key(0)
CELLS = {
    kind.__name__: partial(kind, H, **F64)
    for kind in (nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell)
}
SHARED = {"variable_broadcast": "params", "split_rngs": {"params": False}}
exactly = chex.assert_trees_all_equal


class Runs(nn.Module):
    """A cell under any run: `run(cell, *args)`."""

    cell: Any
    run: Any

    @nn.compact
    def __call__(self, *args, **how):
        return self.run(self.cell(), *args, **how)


def with_gradients(module, variables, *args):
    """What it gives, and gradients of a sum of it by weights and floats."""

    @jax.jit
    def run(variables, *args):
        def loss(variables, *args):
            out = module.apply(variables, *args)
            return total(out), out

        argnums = (0, *(i + 1 for i, a in enumerate(args) if a.dtype != bool))
        return jax.grad(loss, argnums, has_aux=True)(variables, *args)

    return run(variables, *args)


def assert_alike(ours, theirs, *args):
    """Variables that are the same, with their names; values and gradients too."""
    variables = jax.jit(ours.init)(KEY, *args)
    exactly(variables, jax.jit(theirs.init)(KEY, *args))
    got = with_gradients(ours, variables, *args)
    assert_close(got, with_gradients(theirs, variables, *args))


@pytest.mark.every(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_over_time_equals_steps_by_hand(name, reverse):
    module = Runs(CELLS[name], partial(over_time, **MASKED, reverse=reverse))
    variables = module.init(KEY, X)
    (params,) = variables["params"].values()
    cell = CELLS[name]()

    class ByHand(nn.Module):
        @staticmethod
        def apply(variables, x):
            step = partial(cell.apply, {"params": variables["params"][name + "_0"]})
            start = cell.initialize_carry(KEY, (B, D))
            return by_hand(step, start, x, start, reverse=reverse)

    assert params.keys() == cell.init(KEY, *first(cell))["params"].keys()
    got = with_gradients(module, variables, X)
    assert_close(got, with_gradients(ByHand, variables, X))


def first(cell):
    return cell.initialize_carry(KEY, (B, D)), X[:, 0]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, np.array([T, 1, 3])])
def test_over_time_equals_the_rnn_of_flax(reverse, lengths):
    """Which goes on past the lengths, where outputs are zero here."""
    valid = np.arange(T) < (lengths[:, None] if lengths is not None else T)

    def theirs(cell, x):
        how = {"return_carry": True, "reverse": reverse, "keep_order": True}
        state, y = nn.RNN(cell, **how, name="rnn")(x, seq_lengths=lengths)
        return state, jnp.where(valid[..., None], y, 0)

    ours = partial(over_time, lengths=lengths, reverse=reverse)
    assert_alike(*(Runs(CELLS["OptimizedLSTMCell"], run) for run in (ours, theirs)), X)


class Encoder(nn.Module):
    """A cell made in setup, and one given from outside; each runs twice."""

    given: Any
    run: Any

    def setup(self):
        self.own = CELLS["GRUCell"]()

    def __call__(self, x):
        state, y = self.run(self.own, x)
        state, y = self.run(self.own, x, state)
        return self.run(self.given, x + y[..., :D], state)


def test_cells_made_in_setup_and_given_from_outside():
    def by_scan(cell, x, state=None):
        state = cell.initialize_carry(KEY, (B, D)) if state is None else state
        step = lambda cell, state, x: cell(state, x)
        return nn.scan(step, **SHARED, in_axes=1, out_axes=1)(cell, state, x)

    both = (Encoder(CELLS["GRUCell"](), run) for run in (over_time, by_scan))
    assert_alike(*both, X)


def test_a_bound_cell():
    cell = CELLS["GRUCell"]()
    variables = cell.init(KEY, *first(cell))
    state, y = over_time(cell.bind(variables), X, resets=RESETS)
    module = Runs(CELLS["GRUCell"], partial(over_time, resets=RESETS))
    got = module.apply({"params": {"GRUCell_0": variables["params"]}}, X)
    assert_close(got, (state, y))
    grads = jax.grad(lambda w: total(over_time(cell.bind(w), X)))(variables)
    by_rnn = nn.RNN(cell, return_carry=True)
    named = lambda w: {"params": {"cell": w["params"]}}
    want = jax.grad(lambda w: total(by_rnn.apply(named(w), X)))(variables)
    assert_close(grads, want)


def test_a_random_first_state_is_that_of_the_rnn_of_flax():
    cell = partial(nn.GRUCell, H, **F64, carry_init=nn.initializers.normal(1.0))
    theirs = lambda cell, x: nn.RNN(cell, return_carry=True, name="rnn")(x)
    assert_alike(*(Runs(cell, run) for run in (over_time, theirs)), X)


def test_time_major_from_a_state():
    module = Runs(CELLS["LSTMCell"], over_time)
    state = tuple(np.random.default_rng(3).standard_normal((2, B, H)))
    variables = module.init(KEY, X, state)
    end, y = module.apply(variables, X, state, **MASKED)
    x, mask, resets = (a.swapaxes(0, 1) for a in (X, MASK, RESETS))
    how = {"lengths": LENGTHS, "mask": mask, "resets": resets, "time_major": True}
    got = module.apply(variables, x, state, **how)
    assert_close(got, (end, y.swapaxes(0, 1)))


def test_several_axes_of_features():
    """Of a convolution, which is left to `lax.scan`."""
    x = np.random.default_rng(3).standard_normal((2, T, 3, 4, 2))
    cell = lambda: nn.ConvLSTMCell(2, kernel_size=(3, 3), **F64)
    theirs = lambda cell, x: nn.RNN(cell, return_carry=True, name="rnn")(x)
    assert_alike(*(Runs(cell, run) for run in (over_time, theirs)), x)


def test_no_steps():
    module = Runs(CELLS["LSTMCell"], over_time)
    (state, y), variables = module.init_with_output(KEY, X[:, :0])
    exactly(variables, module.init(KEY, X))
    assert_close(state, (jnp.zeros((B, H)),) * 2)
    assert y.shape == (B, 0, H)


class Noisy(nn.RNNCellBase):
    """What a cell may write: running statistics; and random numbers of all kinds."""

    @nn.compact
    def __call__(self, h, x):
        h, y = nn.GRUCell(H, **F64)(h, x)
        y = nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(y)
        y = y + jax.random.normal(self.make_rng("noise"), y.shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, H)
        last = self.variable("batch_stats", "last", jnp.zeros, x.shape)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            mean.value = 0.9 * mean.value + 0.1 * y.mean(0)
            last.value = x
        self.sow("intermediates", "y", y)
        return h, y - mean.value

    @nn.nowrap
    def initialize_carry(self, rng, shape):
        return jnp.zeros((*shape[:-1], H))

    num_feature_axes = 1


RNGS = {"dropout": jax.random.key(1), "noise": jax.random.key(2)}


def with_flax(cell, x):
    """The same by a scan of Flax, whose variables have to be there before."""
    state = cell.initialize_carry(KEY, (B, D))
    if cell.is_initializing():
        cell(state, x[:, 0])
    step = lambda cell, state, x: cell(state, x)
    run = nn.scan(
        step,
        variable_broadcast="params",
        variable_carry="batch_stats",
        split_rngs={"params": False, "dropout": True, "noise": True},
        in_axes=1,
        out_axes=1,
    )
    return run(cell, state, x)


def test_what_the_cell_writes_and_draws():
    """It is that of `nn.scan`, to the last random number."""
    ours, theirs = (Runs(Noisy, run) for run in (over_time, with_flax))
    rngs = {"params": KEY, **RNGS}
    variables = ours.init(rngs, X)
    exactly(variables, theirs.init(rngs, X))
    assert not variables["batch_stats"]["Noisy_0"]["mean"].any()

    def run(module):
        how = {"rngs": RNGS, "mutable": ["batch_stats"]}

        def loss(params):
            given = {**variables, "params": params}
            out, new = module.apply(given, X, **how)
            return total((out, new)), (out, new)

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    got = run(ours)
    assert_close(got, run(theirs))
    _, (_, new) = got
    assert np.ptp(new["batch_stats"]["Noisy_0"]["mean"]) > 0


def test_remat():
    ours, theirs = (Runs(Noisy, partial(over_time, remat=n)) for n in (2, None))
    rngs = {"params": KEY, **RNGS}
    variables = jax.jit(theirs.init)(rngs, X)
    exactly(jax.jit(ours.init)(rngs, X), variables)

    def gradient(module):
        how = {"rngs": RNGS, "mutable": ["batch_stats"], "resets": RESETS}
        loss = lambda w: total(module.apply({**variables, "params": w}, X, **how))
        return jax.jit(jax.grad(loss))(variables["params"])

    assert_close(gradient(ours), gradient(theirs))
    run = lambda m: str(jax.make_jaxpr(partial(m.apply, variables, rngs=RNGS))(X))
    assert run(ours).count("prevent_cse") > run(theirs).count("prevent_cse") == 0


def test_what_the_cell_only_reads():
    ours = Runs(Noisy, over_time)
    variables = ours.init({"params": KEY, **RNGS}, X)
    stats = jax.tree.map(lambda a: a + 1, variables["batch_stats"])
    changed = {**variables, "batch_stats": stats}
    run = partial(ours.apply, rngs={"noise": RNGS["noise"]})
    state, y = run(changed, X)
    assert_close((state, y + 1), run(variables, X))
    # what is sown is left out
    out, sown = run(changed, X, mutable=["intermediates"])
    assert_close(out, (state, y))
    assert not sown


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_are_those_of_the_cell(dtype):
    drawn = nn.initializers.lecun_normal()  # orthogonal ones need more bits
    for kind in (nn.GRUCell, nn.LSTMCell):
        how = {"dtype": dtype, "param_dtype": dtype, "recurrent_kernel_init": drawn}
        cell, theirs = partial(kind, H, **how), partial(nn.RNN, return_carry=True)
        runs = over_time, lambda cell, x, theirs=theirs: theirs(cell, name="rnn")(x)
        ours, theirs = (Runs(cell, run) for run in runs)
        x = X.astype(dtype)
        variables = ours.init(KEY, x)
        got, want = (jax.jit(each.apply)(variables, x) for each in (ours, theirs))
        chex.assert_type(jax.tree.leaves(got), dtype)
        chex.assert_trees_all_close(got, want, atol=8 * jnp.finfo(dtype).eps)


def test_nan_in_the_padding_reaches_nothing():
    module = Runs(CELLS["LSTMCell"], partial(over_time, lengths=LENGTHS, mask=MASK))
    variables = module.init(KEY, X)
    x = np.where(VALID[..., None], X, np.nan)
    got = with_gradients(module, variables, x)
    assert_close(got, with_gradients(module, variables, X))


def test_vmap_over_rows_and_over_members():
    module = Runs(CELLS["GRUCell"], over_time)
    variables = module.init(KEY, X)
    want = module.apply(variables, X, resets=RESETS)
    by_row = lambda x, resets: module.apply(variables, x, resets=resets)
    assert_close(jax.vmap(by_row)(X, RESETS), want)
    members = nn.vmap(
        Runs,
        in_axes=None,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        axis_size=2,
    )(CELLS["GRUCell"], over_time)
    variables = members.init(KEY, X)
    state, y = members.apply(variables, X)
    for i in range(2):
        own = jax.tree.map(lambda a, i=i: a[i], variables)
        assert_close((state[i], y[i]), module.apply(own, X))


def policy(scan):
    """A recurrent policy: a GRU whose carry is reset where an episode began."""

    class Memory(nn.Module):
        @partial(scan, **SHARED, in_axes=0, out_axes=0)
        @nn.compact
        def __call__(self, h, now):
            x, reset = now
            h = jnp.where(reset[:, None], jnp.zeros_like(h), h)
            return nn.GRUCell(H, **F64)(h, x)

    class Policy(nn.Module):
        @nn.compact
        def __call__(self, h, x, resets):
            h, y = Memory()(h, (nn.Dense(D, **F64)(x), resets))
            return h, nn.Dense(2, **F64)(y)

    return Policy()


BY_TIME = X.swapaxes(0, 1)
STATE = np.random.default_rng(3).standard_normal((B, H))


def test_a_method_is_scanned():
    args = STATE, BY_TIME, RESETS.T
    assert_alike(policy(scan), policy(nn.scan), *args)
    wrapped = nn.remat(type(policy(scan)))(), nn.remat(type(policy(nn.scan)))()
    assert_alike(*wrapped, *args)


class Sum(nn.Module):
    """An LSTM under a scan with options, the inputs added up from two."""

    scan: Any
    options: Any

    @nn.compact
    def __call__(self, x, more):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, state, x, more):
                state, y = nn.LSTMCell(H, **F64, name="lstm")(state, x + more)
                return state, (y, state[0])

        state = (jnp.ones((B, H)),) * 2
        return self.scan(Step, **SHARED, **self.options)()(state, x, more)


@pytest.mark.parametrize(
    "options, x, more",
    [
        ({"in_axes": 1, "out_axes": 1}, X, 2 * X),
        ({"in_axes": (1, nn.broadcast), "reverse": True}, X, X[:, 0]),
        ({"in_axes": (1, 2), "out_axes": (0, -1)}, X, X.swapaxes(1, 2)),
        ({"in_axes": 1, "length": T, "unroll": 2}, X, X),
    ],
)
def test_axes_and_options(options, x, more):
    assert_alike(*(Sum(each, options) for each in (scan, nn.scan)), x, more)


def test_a_function_a_class_and_other_methods():
    class Cell(nn.Module):
        def setup(self):
            self.gru = CELLS["GRUCell"]()

        def step(self, h, x):
            return self.gru(h, x)

        def twice(self, h, x):
            return self.gru(self.gru(h, x)[0], x)

    class Both(nn.Module):
        scan: Any

        @nn.compact
        def __call__(self, h, x):
            methods = {name: {**SHARED, "in_axes": 1} for name in ("step", "twice")}
            cell = self.scan(Cell, methods=methods)()
            h, y = cell.step(h, x)
            h, z = cell.twice(h, x)
            f = lambda gru, h, x: gru(h, x)
            gru = CELLS["GRUCell"](name="gru")
            h, u = self.scan(f, **SHARED)(gru, h, y[..., :D])
            named = self.scan(partial(nn.GRUCell, H, **F64), **SHARED)()
            return named(h, u[..., :D]), z

    assert_alike(Both(scan), Both(nn.scan), STATE, X)


def test_without_inputs():
    class Alone(nn.Module):
        scan: Any

        @nn.compact
        def __call__(self, h):
            f = lambda dense, h, _: (jnp.tanh(dense(h)), h)
            dense = nn.Dense(H, **F64)
            return self.scan(f, **SHARED, length=T)(dense, h, None)

    assert_alike(Alone(scan), Alone(nn.scan), STATE)


@pytest.mark.every(3)
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("step_rng", [True, False])
@pytest.mark.parametrize("product", [True, False])
def test_random_numbers_are_those_of_nn_scan(product, step_rng, check):
    """Of the target's own, and of a module in it, drawn before and after the scan.

    Flax traces the target once more to check it; without a product `lax.scan` does.
    """

    class Draws(nn.Module):
        @nn.compact
        def __call__(self, h, x):
            h, y = nn.GRUCell(H, **F64)(h, x) if product else (h, jnp.sin(h))
            y = nn.Dropout(0.5, deterministic=False)(y)
            return h, y + jax.random.normal(self.make_rng("noise"), y.shape)

    class Outer(nn.Module):
        scan: Any

        @nn.compact
        def __call__(self, h, x):
            rngs = {"params": False, "dropout": step_rng, "noise": True}
            how = {"variable_broadcast": "params", "split_rngs": rngs}
            if not self.is_initializing():  # Flax makes no variables without
                how["check_constancy_invariants"] = check
            cell = self.scan(Draws, **how, in_axes=1, out_axes=1)()
            h, y = cell(h, x)
            h, z = cell(h, x)
            return h, y, z, jax.random.normal(self.make_rng("noise"), (3,))

    ours, theirs = Outer(scan), Outer(nn.scan)
    variables = ours.init({"params": KEY, **RNGS}, STATE, X)
    run = lambda module: jax.jit(partial(module.apply, rngs=RNGS))(variables, STATE, X)
    got = run(ours)
    assert_close(got, run(theirs))
    assert not np.allclose(got[1], got[2])


class Layers(nn.Module):
    """Weights that differ from step to step, outputs that do not."""

    scan: Any

    @nn.compact
    def __call__(self, x):
        step = lambda dense, x: (nn.tanh(dense(x)), jnp.ones(()))
        how = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        options = {**how, "length": 3, "out_axes": nn.broadcast}
        return self.scan(step, **options)(nn.Dense(D, **F64), x)


def test_arguments_are_those_of_nn_scan():
    """In their order; where it has an empty mapping, the default is None here."""
    ours, theirs = (inspect.signature(f).parameters for f in (scan, nn.scan))
    assert [name for name in theirs if name in ours] == [*ours]
    for name, own in ours.items():
        default = theirs[name].default
        assert own.default == (None if isinstance(default, Mapping) else default)


def test_what_is_left_to_nn_scan():
    assert_alike(Layers(scan), Layers(nn.scan), X)


def test_gradients_of_weights_are_made_after_the_loop():
    rnn = lambda cell, x: nn.RNN(cell, name="rnn")(x)
    encoders = [Runs(CELLS["GRUCell"], run) for run in (over_time, rnn)]
    for (ours, theirs), *args in (
        (encoders, X),
        (map(policy, (scan, nn.scan)), STATE, BY_TIME, RESETS.T),
    ):
        variables = ours.init(KEY, *args)
        rows = lambda m, args=args, w=variables: rows_summed(
            lambda w: total(m.apply(w, *args)), w
        )
        assert rows(ours) == {B * T}
        assert B in rows(theirs)


def test_errors_name_the_argument():
    cell = CELLS["GRUCell"]()
    bound = cell.bind(cell.init(KEY, *first(cell)))
    for match, call in {
        r"^cell: expected a Linen module .*, got str": lambda: over_time("gru", X),
        r"^cell: .* jaxseq.nn.over_time\), got flax.nnx.*GRUCell$": lambda: over_time(
            nnx.GRUCell(D, H, rngs=nnx.Rngs(0)), X
        ),
        r"^cell: expected a module .* cell\(state, x_t\).*\.Dense": lambda: over_time(
            nn.Dense(3).bind({}), X, X[:, 0]
        ),
        r"^cell: expected a cell of a module .*unbound": lambda: over_time(cell, X),
        r"^cell: expected a module with init": lambda: over_time(
            nn.Dense(3).bind({}), X
        ),
        r"^state: expected shape \(3, 4\), got": lambda: over_time(bound, X, X[:, 0]),
        r"^x: expected shape \(\.\.\., T, D\)": lambda: over_time(bound, X[0, 0]),
        r"^mask: expected shape": lambda: over_time(bound, X, mask=MASK.T),
        r"^time_major: expected True or False": lambda: over_time(
            bound, X, time_major=1
        ),
        r"^target: expected a function, got None": lambda: scan(None),
        r"^reverse: expected True or False": lambda: scan(nn.GRUCell, reverse=2),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


def test_errors_of_the_cell_say_what_it_was_given():
    cell = CELLS["GRUCell"]()
    bound = cell.bind(cell.init(KEY, *first(cell)))
    with pytest.raises(ScopeParamShapeError, match="kernel") as caught:
        over_time(bound, np.concatenate([X, X], -1))
    note = "the cell was given a state float64[3,4] and x_t float64[3,4]"
    assert note in caught.value.__notes__
