"""The modules of `jaxseq.linen` against those of `jaxseq.nn`, and loops of steps."""

from functools import partial

import flax.linen
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxseq.nn
from jaxseq.convert import from_linen
from jaxseq.linen import GRU, LSTM, RNN, Cell, ScannedRNN
from tests.cells import assert_close

F64 = {"param_dtype": jnp.float64}
PEEPHOLES = jaxseq.lstm_cell(peepholes=True)
MODULES = {
    "rnn": (RNN, jaxseq.nn.RNN, (), {"activation": jnp.sin}),
    "lstm": (LSTM, jaxseq.nn.LSTM, (), {"forget_bias": 0.5}),
    "gru": (GRU, jaxseq.nn.GRU, (), {}),
    "cell": (Cell, jaxseq.nn.Cell, (PEEPHOLES,), {}),
}
every_module = pytest.mark.parametrize("name", MODULES)
KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((4, 6, 3))
LENGTHS = np.array([6, 0, 3, 1])
RESETS = np.random.default_rng(1).random((4, 6)) < 0.3


def pair(name, **options):
    """A module of Linen with variables, and one of NNX with the same weights."""
    ours, theirs, first, own = MODULES[name]
    how = {**own, **F64, **options}
    module, other = (
        ours(*first, 5, **how),
        theirs(*first, 3, 5, **how, rngs=nnx.Rngs(1)),
    )
    variables = module.init({"params": KEY, "dropout": KEY}, X)
    weights = variables["params"]["weights"]
    structure = jax.tree.structure(weights)
    assert structure == jax.tree.structure(other.params)
    kind = lambda v: isinstance(v, nnx.Variable)
    jax.tree.map(lambda v, a: v.set_value(a), other.weights, weights, is_leaf=kind)
    return module, variables, other


@pytest.mark.every(3)
@every_module
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True, "merge": "sum"}, {"zoneout": 0.2}],
    ids=["one", "stack", "zoneout"],
)
def test_equals_the_module_of_nnx(name, options):
    module, variables, other = pair(name, **options)
    other.eval()
    how = {"lengths": LENGTHS, "resets": RESETS, "deterministic": True}
    got = jax.jit(partial(module.apply, **how))(variables, X)
    how.pop("deterministic")
    assert_close(got, nnx.jit(lambda m, x: m(x, **how))(other, X))
    zeros = module.zeros(4)
    assert jax.tree.map(jnp.shape, zeros) == jax.tree.map(jnp.shape, got[0])
    if not module.bidirectional:
        step = partial(module.apply, method="step", resets=RESETS[:, 0])
        want = other.step(zeros, X[:, 0], resets=RESETS[:, 0])
        assert_close(step(variables, zeros, X[:, 0]), want)


@every_module
def test_as_a_part_of_a_module(name):
    """Made and called inside, twice over the same weights; and its weights learn."""
    make, _, first, own = MODULES[name]

    class Tagger(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            layer = make(*first, 5, **own, **F64, name="layer")
            state, _ = layer(x)
            _, y = layer(x, state)
            return flax.linen.Dense(2, param_dtype=jnp.float64)(y)

    variables = Tagger().init(KEY, X)
    module = make(*first, 5, **own, **F64)
    inner = {"params": variables["params"]["layer"]}
    state, _ = module.apply(inner, X)
    _, y = module.apply(inner, X, state)
    dense = variables["params"]["Dense_0"]
    assert_close(Tagger().apply(variables, X), y @ dense["kernel"] + dense["bias"])
    grads = jax.grad(lambda v: (Tagger().apply(v, X) ** 2).sum())(variables)
    (weights,) = grads["params"]["layer"]["weights"]
    assert all(np.abs(g).max() > 1e-3 for g in (weights.w_x, weights.w_h, weights.b))
    # and through Flax's own files
    text = flax.serialization.to_bytes(variables)
    zeros = jax.tree.map(jnp.zeros_like, variables)
    assert_close(flax.serialization.from_bytes(zeros, text), variables)


def test_what_is_dropped():
    """Zoneout and the others draw from "dropout", unless deterministic."""
    for options in (
        {"num_layers": 2, "dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"zoneout": 0.5},
        {"weight_drop": 0.5},
    ):
        module, variables, _ = pair("gru", **options)
        run = lambda key, m=module, v=variables: m.apply(v, X, rngs={"dropout": key})[1]
        same, other = jax.random.split(KEY)
        assert_close(run(same), run(same))
        assert np.abs(run(same) - run(other)).max() > 1e-3
        calm = module.apply(variables, X, deterministic=True)[1]
        assert np.abs(calm - run(same)).max() > 1e-3
        with pytest.raises(flax.errors.InvalidRngError):
            module.apply(variables, X)


def test_dtypes():
    module = LSTM(5, dtype=jnp.bfloat16)
    variables = module.init(KEY, X)
    assert variables["params"]["weights"][0].w_x.dtype == jnp.float32
    ((h, c),), y = module.apply(variables, X.astype(np.float32))
    assert (y.dtype, h.dtype, c.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    assert jax.tree.leaves(module.zeros(2))[0].dtype == jnp.float32
    assert jax.tree.leaves(LSTM(5, **F64).zeros(2))[0].dtype == jnp.float64


class Flax(flax.linen.Module):
    """A GRU over time whose carry is zeroed at resets, as its description has it."""

    @partial(flax.linen.scan, variable_broadcast="params", split_rngs={"params": False})
    @flax.linen.compact
    def __call__(self, carry, now):
        x, resets = now
        carry = jnp.where(resets[:, None], jnp.zeros_like(carry), carry)
        return flax.linen.GRUCell(5, param_dtype=jnp.float64, dtype=jnp.float64)(
            carry, x
        )


def test_scanned_rnn_is_that_of_the_code_that_has_one():
    x, resets = X.swapaxes(0, 1), RESETS.T
    hidden = 0.5 + np.random.default_rng(2).random((4, 5))
    theirs = Flax().init(KEY, hidden, (x, resets))
    weights = from_linen(theirs["params"]["GRUCell_0"]).layers
    ours = {"params": {"weights": jax.tree.map(jnp.asarray, weights)}}
    module = ScannedRNN(5, **F64)
    structure = jax.tree.structure(module.init(KEY, hidden, (x, resets)))
    assert structure == jax.tree.structure(ours)

    def both(run, variables):
        def loss(x, hidden):
            out = run(variables, hidden, (x, resets))
            return sum((a**2).sum() for a in jax.tree.leaves(out)), out

        return jax.grad(loss, (0, 1), has_aux=True)(x, hidden)

    assert_close(both(module.apply, ours), both(Flax().apply, theirs))


@pytest.mark.parametrize("cell", ["LSTM", "RNN", "GRU"])
def test_scanned_rnn_of_any_cell(cell):
    """Its weights are those of the module of NNX."""
    cell, kind = getattr(jaxseq, cell), getattr(jaxseq.nn, cell)
    module, other = ScannedRNN(5, cell, **F64), kind(3, 5, **F64, rngs=nnx.Rngs(0))
    variables = {"params": {"weights": other.params}}
    hidden = ScannedRNN.initialize_carry(4, 5, cell)
    hidden = jax.tree.map(lambda a: 0.5 + a.astype(jnp.float64), hidden)
    end, y = module.apply(variables, hidden, (X.swapaxes(0, 1), RESETS.T))
    want, want_y = other(X, (hidden,), resets=RESETS)
    assert_close((end, y.swapaxes(0, 1)), (want[0], want_y))


def test_scanned_rnn_as_it_is_made_without_arguments():
    """As wide as its input; one step at a time gives what a rollout gives."""
    x = jnp.asarray(X.swapaxes(0, 1), jnp.float32)
    hidden = ScannedRNN.initialize_carry(4, 3)
    variables = ScannedRNN().init(KEY, hidden, (x, RESETS.T))
    end, y = ScannedRNN().apply(variables, hidden, (x, RESETS.T))
    assert y.shape == (6, 4, 3) and hidden.shape == (4, 3) and not hidden.any()
    for t in range(6):
        now = x[t : t + 1], RESETS.T[t : t + 1]
        hidden, y_t = ScannedRNN().apply(variables, hidden, now)
        np.testing.assert_allclose(y_t[0], y[t], atol=1e-6)
    np.testing.assert_allclose(hidden, end, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_scanned_rnn_takes_flags_as_numbers(dtype):
    """As code that copies the module passes them, with `jnp.where` in it."""
    numbers = 2 * RESETS.T.astype(dtype)
    hidden, x = ROLLOUT[0] + 0.5, ROLLOUT[1][0]
    variables = rolled.init(KEY, hidden, (x, jnp.zeros_like(numbers)))
    want = rolled.apply(variables, hidden, (x, RESETS.T))
    assert_close(rolled.apply(variables, hidden, (x, numbers)), want)


@pytest.mark.parametrize("lifted", ["remat", "jit", "vmap"])
def test_scanned_rnn_under_transforms_of_flax(lifted):
    """Two of it, mapped over seeds: as one that is run as it is."""
    make = ScannedRNN
    if lifted == "vmap":
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        module = flax.linen.vmap(make, **axes)(5, **F64)
    else:
        module = getattr(flax.linen, lifted)(make)(5, **F64)
    hidden, (x, resets) = ROLLOUT
    given = hidden + 0.5, (x, resets)
    if lifted == "vmap":
        given = jax.tree.map(lambda a: jnp.stack([a, a]), given)
    keys = jax.random.split(KEY, 2)
    variables = jax.jit(jax.vmap(lambda key: module.init(key, *given)))(keys)

    def loss(run, variables):
        return jax.tree.reduce(lambda s, a: s + (a**2).sum(), run(variables), 0.0)

    grads = jax.vmap(jax.grad(partial(loss, lambda v: module.apply(v, *given))))
    got = jax.jit(grads)(variables)
    if lifted == "vmap":
        given = jax.tree.map(lambda a: a[0], given)
        merge = lambda a: a.reshape(-1, *a.shape[2:])
        got, variables = jax.tree.map(merge, (got, variables))
    want = jax.vmap(jax.grad(partial(loss, lambda v: rolled.apply(v, *given))))
    assert_close(got, jax.jit(want)(variables))
    drawn = np.asarray(variables["params"]["weights"][0].w_h)
    assert len({w.tobytes() for w in drawn}) == len(drawn)


def over(module, *args, **how):
    return lambda: module.apply(module.init(KEY, X), *args, **how)


ROLLOUT = jnp.zeros((4, 5)), (X.swapaxes(0, 1), RESETS.T)
rolled = ScannedRNN(5, **F64)
WRONG = {
    "hidden_features: expected a size": lambda: LSTM(0),
    "num_layers: expected a size": lambda: GRU(5, num_layers=1.5),
    "bidirectional: expected": lambda: GRU(5, bidirectional="yes"),
    "merge: expected 'concat', or": lambda: GRU(5, merge="sum"),
    "merge: expected one of": lambda: GRU(5, bidirectional=True, merge="max"),
    "dropout: expected 0 with a single": lambda: GRU(5, dropout=0.5),
    "dropout: expected a probability": lambda: GRU(5, num_layers=2, dropout=1.5),
    "dropout_per: expected": lambda: GRU(5, dropout_per="row"),
    "recurrent_dropout: expected": lambda: GRU(5, recurrent_dropout=-1),
    "zoneout: expected": lambda: LSTM(5, zoneout=(0.1, 0.1, 0.1)),
    "weight_drop: expected": lambda: GRU(5, weight_drop="x"),
    "dtype: expected a dtype": lambda: GRU(5, dtype=jnp.int32),
    "param_dtype: expected a dtype": lambda: GRU(5, param_dtype=jnp.int32),
    "activation: expected": lambda: RNN(5, activation="tanh"),
    "cell: expected a Cell, got str": lambda: Cell("gru", 5),
    "lengths: expected": over(GRU(5), X, lengths=[1, 2]),
    "resets: expected": over(GRU(5), X, resets=RESETS[:, :3]),
    "deterministic: expected": over(GRU(5), X, deterministic="no"),
    "state: expected": over(GRU(5), X, (np.zeros((4, 6)),)),
    "x: expected": over(GRU(5), "x"),
    "batch: expected": lambda: GRU(5).zeros(-1),
    "bidirectional: expected False": over(
        GRU(5, bidirectional=True), GRU(5).zeros(4), X[:, 0], method="step"
    ),
    "state: expected a state": over(GRU(5), None, X[:, 0], method="step"),
    "features: expected a size": lambda: ScannedRNN(0),
    "cell: expected a Cell, got type": lambda: ScannedRNN(5, flax.linen.GRUCell),
    "hidden_size: expected": lambda: ScannedRNN.initialize_carry(4, 0),
    "batch_size: expected a size": lambda: ScannedRNN.initialize_carry(-1, 5),
    "cell: expected a Cell, got int": lambda: ScannedRNN.initialize_carry(5, 4, 3),
    r"carry: expected shape \(4, 5\), got \(5, 4\)": lambda: rolled.init(
        KEY, jnp.zeros((5, 4)), ROLLOUT[1]
    ),
    "carry.h: expected dtype": lambda: ScannedRNN(5, jaxseq.LSTM, **F64).init(
        KEY, ScannedRNN.initialize_carry(4, 5, jaxseq.LSTM), ROLLOUT[1]
    ),
    r"x: expected a pair \(x, resets\)": lambda: rolled.init(KEY, ROLLOUT[0], X),
    r"x: expected shape \(T, ..., D\)": lambda: rolled.init(
        KEY, ROLLOUT[0], (X[0, 0], True)
    ),
    "resets: expected shape": lambda: rolled.init(KEY, ROLLOUT[0], (X, RESETS.T)),
}


@pytest.mark.parametrize("message", WRONG)
def test_errors(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        WRONG[message]()
