"""Recurrent dropout, zoneout and weight drop of the modules."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxseq.nn
from examples.cells.mgu import MGU
from tests.cells import assert_close, weighted_sum

MAKE = {
    "rnn": jaxseq.nn.RNN,
    "relu": partial(jaxseq.nn.RNN, activation=jax.nn.relu),
    "lstm": jaxseq.nn.LSTM,
    "gru": jaxseq.nn.GRU,
    "own": partial(jaxseq.nn.Cell, MGU),
}
CELLS = {
    "rnn": jaxseq.RNN,
    "relu": jaxseq.rnn_cell(activation=jax.nn.relu),
    "lstm": jaxseq.LSTM,
    "gru": jaxseq.GRU,
    "own": MGU,
}
every_module = pytest.mark.parametrize("name", MAKE)
ALL = {"recurrent_dropout": 0.4, "zoneout": 0.3, "weight_drop": 0.5}
X = np.random.default_rng(0).standard_normal((4, 6, 3))
LENGTHS = np.array([6, 0, 3, 1])
RESETS = np.random.default_rng(1).random((4, 6)) < 0.3
run = nnx.jit(lambda module, *args, **how: module(*args, **how))


def made(name: str, **options: Any) -> Any:
    how = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(params=0, dropout=1)}
    return MAKE[name](3, 5, **how | options)


def linear(B: int, T: int, **options: Any) -> tuple[Any, Any]:
    """A module of `h = x_t + h`, and ones at the first step."""
    how = {"activation": lambda a: a, "rngs": nnx.Rngs(0)}
    module = jaxseq.nn.RNN(8, 8, **how, **options)
    (held,) = module.weights
    held.w_x[...] = held.w_h[...] = jnp.eye(8, dtype=jnp.float32)
    return module, jnp.zeros((B, T, 8), jnp.float32).at[:, 0].set(1)


@pytest.mark.every(2)
@every_module
def test_training_is_that_of_the_functions(name):
    """In all layers and directions, with keys of their own."""
    how = {"num_layers": 2, "bidirectional": True, "dropout": 0.2}
    module = made(name, **how, **ALL)
    stream = nnx.Rngs(dropout=1).dropout.fork()
    between, of_weights, key = stream(), stream(), stream()
    params = jaxseq.weight_drop(module.params, 0.5, key=of_weights)
    rates = {"recurrent_dropout": 0.4, "zoneout": 0.3}
    layers = []
    for pair, k in zip(params, jax.random.split(key), strict=True):
        both = zip(pair, jax.random.split(k), strict=True)
        cells = [
            partial(jaxseq.cell_dropout, CELLS[name], w, key=k, **rates)
            for w, k in both
        ]
        layers.append(partial(jaxseq.bidirectional, *cells))
    given = {"lengths": LENGTHS, "resets": RESETS}
    want = jaxseq.stack(layers, X, dropout=0.2, key=between, **given)
    assert_close(run(module, X, **given), want)


@every_module
def test_evaluation(name):
    """The module itself; with zoneout its mean, also step by step."""
    plain, module = made(name), made(name, recurrent_dropout=0.4, weight_drop=0.5)
    module.eval()
    got, want = (run(m, X, resets=RESETS) for m in (module, plain))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    module = made(name, num_layers=2, **ALL)
    module.eval()
    assert not np.allclose(module(X)[1], made(name, num_layers=2)(X)[1])
    cell = jaxseq.zoneout(CELLS[name], 0.3)
    layers = [partial(jaxseq.cell_dropout, cell, weights) for weights in module.params]
    start = jax.tree.map(lambda a: 0.5 + a[0], module.zeros(4))
    how = {"resets": RESETS, "start": start}
    want = jaxseq.stack(layers, X, module.zeros(4), **how)
    assert_close(run(module, X, module.zeros(4), **how), want)
    assert_close(jax.jit(partial(module, **how))(X, module.zeros(4)), want)
    module.train()  # a step is as in evaluation
    state = module.zeros(4)
    for t in range(X.shape[1]):
        state, y = module.step(state, X[:, t], resets=RESETS[:, t], start=start)
        np.testing.assert_allclose(y, want[1][:, t], atol=1e-12)


def test_one_mask_of_features_for_all_steps():
    """Also after resets, and another for each sequence and call."""
    module, x = linear(500, 6, recurrent_dropout=0.25)
    x, resets = x.at[:, 3].set(1), np.arange(6) == np.full((500, 1), 3)
    y, other = (np.asarray(run(module, x, resets=resets)[1]) for _ in range(2))
    kept = y[:, 1] != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.04)  # 4,000 draws
    powers = (4 / 3) ** np.arange(3, dtype=np.float32)
    once = np.where(kept[:, None], powers[:, None], [[1], [0], [0]])
    np.testing.assert_allclose(y, np.concatenate([once, once], 1), rtol=1e-6)
    assert (kept != kept[:1]).any() and (kept != (other[:, 1] != 0)).any()


def test_one_mask_of_weights_for_all_sequences():
    module, x = linear(3, 4, weight_drop=0.5)
    module.weights[0].w_h[...] = w = np.float32(
        np.random.default_rng(2).normal(size=(8, 8))
    )
    y, other = (np.asarray(run(module, x)[1]) for _ in range(2))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))
    assert (y != other).any()
    module.eval()
    np.testing.assert_allclose(run(module, x)[1][0, 1], w.sum(0), rtol=1e-5)


@pytest.mark.parametrize("rates", [{name: rate} for name, rate in ALL.items()], ids=ALL)
def test_evaluation_is_the_mean_of_training(rates):
    """Of a linear network, in which each mask acts once."""
    zones = "zoneout" in rates
    module, x = linear(20_000, 4 if zones else 2, **rates)
    runs = [run(module, x)[1].mean(0) for _ in range(1 if zones else 40)]
    of_weights = "weight_drop" in rates
    module.eval()
    want = run(module, x[:1])[1][0]
    found = np.mean(runs, 0)
    if of_weights:  # one draw of 64 weights for a call: their sum tells more
        found, want = found.mean(-1), want.mean(-1)
    np.testing.assert_allclose(found, want, atol=0.3 if of_weights else 0.02)


@pytest.mark.every(2)
@every_module
def test_gradients(name):
    module = made(name, num_layers=2, dropout=0.2, **ALL)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def loss(params, x):
        how = {"lengths": LENGTHS, "resets": RESETS}
        return weighted_sum(nnx.merge(graph, params, rest, copy=True)(x, **how))

    given = params, jnp.asarray(X)
    gradients = jax.jit(jax.grad(loss, (0, 1)))(*given)
    leaves, tree = jax.tree.flatten(given)
    rng, eps = np.random.default_rng(3), 1e-5
    directions = [rng.standard_normal(a.shape) for a in leaves]

    def along(step):
        moved = [a + step * d for a, d in zip(leaves, directions, strict=True)]
        return loss(*tree.unflatten(moved))

    slope = (along(eps) - along(-eps)) / (2 * eps)
    pairs = zip(jax.tree.leaves(gradients), directions, strict=True)
    total = sum((g * d).sum() for g, d in pairs)
    np.testing.assert_allclose(total, slope, atol=1e-7)


@every_module
def test_lengths_and_resets(name):
    """Padding is neither read nor written, and segments do not see each other."""
    rates = {"recurrent_dropout": 0.4, "weight_drop": 0.5}
    twins = iter([made(name, **rates) for _ in range(4)])  # with the same masks
    padded = np.where(np.arange(6)[:, None] < LENGTHS[:, None, None], X, np.nan)
    _, y = run(next(twins), padded, lengths=LENGTHS)
    whole = run(next(twins), X)[1]
    valid = np.arange(6) < LENGTHS[:, None]
    np.testing.assert_array_equal(y, np.where(valid[..., None], whole, 0))
    resets = np.arange(6) == np.full((4, 1), 3)
    _, y = run(next(twins), X, resets=resets)
    np.testing.assert_allclose(y[:, :3], whole[:, :3], atol=1e-12)
    np.testing.assert_allclose(y[:, 3:], run(next(twins), X[:, 3:])[1], atol=1e-12)


def test_a_training_loop():
    """Masks are drawn anew at each step; evaluation draws none and changes nothing."""
    rngs, x = nnx.Rngs(0), X.astype(np.float32)
    rates = {"recurrent_dropout": 0.1, "zoneout": jaxseq.LSTMState(0.0, 0.1)}
    lstm = jaxseq.nn.LSTM(3, 16, num_layers=2, weight_drop=0.1, **rates, rngs=rngs)
    model = nnx.List([lstm, nnx.Linear(16, 1, rngs=rngs)])
    target = np.tanh(x.cumsum(1).sum(-1, keepdims=True) / 4)
    error = lambda model: ((model[1](model[0](x)[1]) - target) ** 2).mean()
    with jax.numpy_dtype_promotion("standard"):  # optax: decay ** count
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def train_step(model, optimizer):
            loss, grads = nnx.value_and_grad(error)(model)
            optimizer.update(model, grads)
            return loss

        evaluate = nnx.jit(error)
        assert evaluate(model) != evaluate(model)
        model.eval()
        first = evaluate(model)
        assert evaluate(model) == first
        model.train()
        for _ in range(300):
            train_step(model, optimizer)
        model.eval()
        assert evaluate(model) < first / 20


def test_rates_of_0_draw_nothing():
    none = {**dict.fromkeys(ALL, 0), "zoneout": jaxseq.LSTMState(0.0, 0.0)}
    module = made("lstm", **none)
    assert not jax.tree.leaves(nnx.state(module, nnx.RngState))
    jax.tree.map(np.testing.assert_array_equal, run(module, X), run(made("lstm"), X))


def test_a_rate_that_changes_is_not_compiled_again():
    rates = {name: jnp.asarray(rate) for name, rate in ALL.items()}
    module, traces = made("gru", **rates), []

    @nnx.jit
    def run(module):
        traces.append(module)
        return module(X)[1]

    assert_close(run(module), made("gru", **ALL)(X)[1])
    for name in ALL:
        setattr(module, name, jnp.asarray(0.0))
    assert_close(run(module), made("gru")(X)[1])
    assert len(traces) == 1


def test_16_bits():
    module = made("lstm", **ALL, param_dtype=jnp.float32, dtype=jnp.bfloat16)
    for each in (module.train, module.eval):
        each()
        ((h, c),), y = run(module, X)
        assert (y.dtype, h.dtype, c.dtype) == ("bfloat16", "float32", "float32")


RATE = r"expected a probability in \[0, 1\), got"
TREE = "expected a probability, or a tree of them like"


@pytest.mark.parametrize("name", ALL)
def test_errors_name_the_argument(name):
    for rate, message in (
        (1.0, f"{RATE} 1.0"),
        (-0.1, f"{RATE} -0.1"),
        (None, f"{RATE} None"),
        ("a", f"{RATE} 'a'"),
        ([0.1], f"{TREE} .*, got|{RATE}"),
        ((0.1, 0.1, 0.1), f"{TREE} .*, got|{RATE}"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: ({message})"):
            made("lstm", **{name: rate})
    with pytest.raises(ValueError, match=f"^{name}: {RATE}"):
        made("own", **{name: float("nan")})
