"""Dropout, recurrent dropout, zoneout and weight drop of any cell."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxseq
import jaxseq.nn
from examples.cells.gru_d import GRU_D
from examples.cells.indrnn import INDRNN
from examples.cells.sru import SRU
from jaxseq._cells import dropout
from tests import reference_variants
from tests.cells import (
    BATCH,
    EVERYTHING,
    LENGTHS,
    D,
    H,
    T,
    assert_close,
    expected,
    weighted_sum,
)
from tests.models import drawn
from tests.reference_cells import over_time

OPTIONS = {
    "loop": {"implementation": "loop"},
    "loop, everything": {"implementation": "loop", **EVERYTHING},
    "scan, everything": {"implementation": "scan", **EVERYTHING},
    "remat": {"remat": 2, **EVERYTHING},
}
KEY = jax.random.key(3)
P_X, P_H, P_ZONE = 0.2, 0.4, 0.3
BOTH = jaxseq.LSTMState(0.25, 0.5)


class Case(NamedTuple):
    cell: jaxseq.Cell
    rates: Any  # of the recurrent matrices and of the state
    step: Callable  # in NumPy, on `(x, mask of x, masks)`


LSTM = partial(reference_variants.dropped_lstm, rate=P_H)
GRU = partial(reference_variants.dropped_gru, rate=P_H)
CASES = {
    "lstm": Case(jaxseq.LSTM, (P_H, BOTH), LSTM),
    "gru": Case(jaxseq.GRU, (P_H, P_ZONE), partial(GRU, after=True)),
    "reset before": Case(
        jaxseq.gru_cell(reset_after=False), (P_H, P_ZONE), partial(GRU, after=False)
    ),
    "projection": Case(
        jaxseq.lstm_cell(cells=5), (jaxseq.Projected(P_H, 0.0), BOTH), LSTM
    ),
    "heads": Case(jaxseq.lstm_cell(heads=2, peepholes=True), (P_H, BOTH), LSTM),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def random_problem(cell: jaxseq.Cell) -> Any:
    rng = np.random.default_rng(7)
    params = drawn(lambda key: cell.init(key, D, H, dtype=jnp.float64), seed=0)
    zeros = jax.eval_shape(lambda: cell.zeros(params, BATCH))
    state = jax.tree.map(lambda s: rng.uniform(-1, 1, s.shape), zeros)
    return params, rng.standard_normal((*BATCH, T, D)), state


def with_masks(monkeypatch: Any, run: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """What a run gives, and the masks that it draws."""
    masks = []

    def recorded(name: str) -> Callable[..., Any]:
        draw = getattr(dropout, name)

        def call(first: Any, *args: Any) -> Any:
            found = draw(first, *args)
            x = name == "dropped"
            masks.extend([draw(jnp.ones_like(first), *args)] if x else found)
            return found

        return call

    with monkeypatch.context() as patch:
        for name in ("dropped", "kept_by", "old_of"):
            patch.setattr(dropout, name, recorded(name))
        out = run()
    return out, [np.asarray(a, float) for a in masks]


@pytest.mark.every(4)
@every_case
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equations_for_the_masks_that_are_drawn(case, options, monkeypatch):
    problem = random_problem(case.cell)
    of_h, of_state = case.rates
    rates = {"dropout": P_X, "recurrent_dropout": of_h, "zoneout": of_state}
    rates["key"] = KEY
    _, x, _ = problem
    run = partial(jaxseq.cell_dropout, case.cell, **rates, **options)
    eager = lambda: run(*jax.tree.map(jnp.asarray, problem))
    got, (mask_x, *masks) = with_masks(monkeypatch, eager)
    masks = (np.broadcast_to(mask_x, x.shape), *masks)
    assert set(np.unique(mask_x)) == {0, 1 / (1 - P_X)}
    known = {k: v for k, v in options.items() if k in EVERYTHING}
    equations = SimpleNamespace(reference=over_time(case.step))
    want = lambda params, x, state: expected(
        equations, params, (x, *masks), state, **known
    )
    assert_close(got, want(*problem))

    def loss(problem):
        out = run(*problem)
        return weighted_sum(out), out

    gradients, again = jax.jit(jax.grad(loss, has_aux=True))(problem)
    assert_close(again, got)
    leaves, tree = jax.tree.flatten(problem)
    rng = np.random.default_rng(3)
    for _ in range(2):
        directions = [rng.standard_normal(a.shape) for a in leaves]

        def along(step, directions=directions):
            moved = [a + step * d for a, d in zip(leaves, directions, strict=True)]
            return weighted_sum(want(*tree.unflatten(moved)))

        eps = 1e-4
        slope = 8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))
        pairs = zip(jax.tree.leaves(gradients), directions, strict=True)
        total = sum((g * d).sum() for g, d in pairs)
        np.testing.assert_allclose(total, slope / (12 * eps), atol=1e-8)


def test_what_is_drawn(monkeypatch):
    """One mask for each sequence, zoneout anew at each step, both at their rates."""
    B, T, D, H = 200, 6, 10, 20
    params, x = jaxseq.lstm_init(KEY, D, H), jnp.ones((B, T, D), jnp.float32)
    rates = {"dropout": 0.2, "recurrent_dropout": 0.4, "zoneout": BOTH}
    run = lambda key: jaxseq.cell_dropout(jaxseq.LSTM, params, x, key=key, **rates)
    (_, y), (of_x, kept, old_h, old_c) = with_masks(monkeypatch, lambda: run(KEY))
    _, others = with_masks(monkeypatch, lambda: run(jax.random.key(4)))
    for mask, share, same in (
        (of_x > 0, 0.8, True), (kept, 0.6, True), (old_h, 0.25, False),
        (old_c, 0.5, False),
    ):  # fmt: skip
        assert (mask == mask[:, :1]).all() == same
        assert (mask != mask[:1]).any(axis=(0, 1)).all()  # rows differ
        assert mask.shape[:2] == (B, T)
        drawn = mask[:, 0] if same else mask
        error = 5 * np.sqrt(share * (1 - share) / drawn.size)
        np.testing.assert_allclose(drawn.mean(), share, atol=error)
    assert (old_h != old_c).any() and not np.array_equal(kept, others[1])
    still = y[:, 1:] == y[:, :-1]  # a unit that keeps its value is seen in y
    np.testing.assert_array_equal(np.asarray(still), old_h[:, 1:] == 1)


def test_the_mean_of_what_matrices_are_given_is_what_it_was():
    """Of a linear cell, over many rows."""
    B = 20_000
    update = lambda z_x, h, w_h, _: z_x + w_h["a"](h)
    zeros = lambda params, batch=(): jaxseq.cell_zeros(2, batch, dtype=params.w_x.dtype)
    cell = jaxseq.Cell(update, jaxseq.cell_init, zeros)
    params = jaxseq.CellParams(jnp.eye(2), {"a": jnp.eye(2)})
    run = lambda key: jaxseq.cell_dropout(
        cell, params, jnp.full((B, 1, 2), 3.0), jnp.full((B, 2), 2.0),
        dropout=0.25, recurrent_dropout={"a": 0.5}, key=key,
    )[0]  # fmt: skip
    end = np.asarray(run(KEY))
    np.testing.assert_allclose(end.mean(0), 5, atol=0.1)
    assert set(np.unique(end)) == {0, 4, 8}


def test_rates_of_0_are_the_cell_itself():
    params, x, state = jax.tree.map(jnp.asarray, random_problem(jaxseq.LSTM))
    want = jaxseq.lstm(params, x, state, **EVERYTHING)
    run = partial(jaxseq.cell_dropout, jaxseq.LSTM, params, x, state, **EVERYTHING)
    none = {"recurrent_dropout": 0, "dropout": np.float32(0), "zoneout": 0.0}
    training = {"recurrent_dropout": 0.5, "dropout": 0.5, "deterministic": True}
    for options in ({}, none, {**none, "key": KEY}, training, {**training, "key": KEY}):
        got = run(**options)
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_array_equal(got[0].c, want[0].c)
    assert jaxseq.zoneout(jaxseq.LSTM, 0.0) is jaxseq.LSTM
    assert jaxseq.weight_drop(params, 0.0) is params


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_zoneout_in_evaluation_is_its_mean(name):
    case = CASES[name]
    params, x, state = random_problem(case.cell)
    rate = case.rates[1]
    rates = rate if name == "lstm" else (rate,)

    step = partial(of_means, case.step, rates=rates)
    equations = SimpleNamespace(reference=over_time(step))
    want = expected(equations, params, x, state, **EVERYTHING)
    run = partial(jaxseq.cell_dropout, case.cell, zoneout=rate, deterministic=True)
    assert_close(run(params, x, state, **EVERYTHING), want)
    cell = jaxseq.zoneout(case.cell, rate)
    weights = jaxseq.CellParams(*params)
    assert_close(jaxseq.cell(cell.update, weights, x, state, **EVERYTHING), want)
    h, _ = jaxseq.cell_step(cell.update, weights, state, x[..., 0, :])
    first = expected(equations, params, x[..., :1, :], state)
    assert_close(h, first[0])


def of_means(step: Callable, params: Any, state: Any, x: Any, *, rates: Any) -> Any:
    """The step without dropout, and the probabilities in the place of masks."""
    return partial(step, rate=0.0)(params, state, (x, 1.0, 1.0, *rates))


def test_layers_of_both_directions():
    """A stack of layers with dropout is one after the other."""
    rng = np.random.default_rng(1)
    keys = jax.random.split(KEY, 4)
    init = lambda D, seed: drawn(
        lambda key: jaxseq.gru_init(key, D, H, dtype=jnp.float64), seed=seed
    )
    params = init(D, 0), init(D, 1), init(2 * H, 2)
    layer = partial(
        jaxseq.cell_dropout, jaxseq.GRU, dropout=P_X, recurrent_dropout=P_H,
        zoneout=P_ZONE,
    )  # fmt: skip
    a, b, c = (partial(layer, p, key=k) for p, k in zip(params, keys, strict=False))
    x, options = rng.standard_normal((*BATCH, T, D)), {"lengths": LENGTHS}

    @jax.jit
    def both(x):
        pair = partial(jaxseq.bidirectional, a, b)
        whole = jaxseq.stack([pair, c], x, **options)
        (end_a, y_a), (end_b, y_b) = a(x, **options), b(x, reverse=True, **options)
        end, y = c(jnp.concatenate([y_a, y_b], -1), **options)
        return whole, (((end_a, end_b), end), y)

    assert_close(*both(x))


@pytest.mark.parametrize("name", ["lstm", "reset before"])
def test_traced_rates(name):
    case = CASES[name]
    params, x, state = random_problem(case.cell)
    zone = BOTH if name == "lstm" else P_ZONE
    rates = {"dropout": P_X, "recurrent_dropout": P_H, "zoneout": zone}
    run = lambda rates: jaxseq.cell_dropout(
        case.cell, params, x, state, key=KEY, **rates, **EVERYTHING
    )
    assert_close(jax.jit(run)(rates), run(rates))
    mean = lambda rates: jaxseq.cell_dropout(
        case.cell, params, x, state, deterministic=True, **rates
    )
    assert_close(jax.jit(mean)(rates), mean(rates))


def test_a_cell_is_compiled_once(caplog):
    params, x = jaxseq.lstm_init(KEY, D, H), jnp.ones((2, T, D), jnp.float32)
    rates = {"dropout": 0.1, "recurrent_dropout": 0.2, "zoneout": BOTH}
    run = lambda key: jaxseq.cell_dropout(jaxseq.LSTM, params, x, key=key, **rates)
    run(KEY)
    with jax.log_compiles():
        run(jax.random.key(5))
    assert "Finished XLA compilation" not in caplog.text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
    params, x = jaxseq.lstm_init(KEY, D, H, dtype=dtype), jnp.ones((2, T, D), dtype)
    run = jax.jit(
        lambda x: jaxseq.cell_dropout(
            jaxseq.LSTM, params, x, dropout=P_X, recurrent_dropout=P_H, zoneout=BOTH,
            key=KEY,
        )
    )  # fmt: skip
    (h, c), y = run(x)
    assert (y.dtype, h.dtype, c.dtype) == (dtype, jnp.float32, jnp.float32)
    np.testing.assert_array_equal(h.astype(dtype), y[:, -1])


def test_trees_of_inputs():
    """Without an input map, with two maps of one input, and with no matrix to drop."""
    rng = np.random.default_rng(2)
    floats = lambda *shape: rng.standard_normal(shape)
    observed = rng.integers(0, 2, (2, T, D)).astype(float)
    for cell, x, of_x in (
        (GRU_D, (floats(2, T, D), observed, abs(floats(2, T, D))), (P_X, 0.0, 0.0)),
        (SRU, floats(2, T, H), P_X),
        (INDRNN, floats(2, T, D), P_X),
    ):
        width = jax.tree.leaves(x)[0].shape[-1]
        params = drawn(partial(cell.init, D=width, H=H, dtype=jnp.float64), seed=1)
        rates = {"dropout": of_x, "recurrent_dropout": P_H, "zoneout": P_ZONE}
        run = partial(jaxseq.cell_dropout, cell, **rates, key=KEY)
        loss = lambda *args, run=run, **how: weighted_sum(run(*args, **how))
        loop, scan = (
            jax.jit(jax.grad(partial(loss, implementation=how), (0, 1)))(params, x)
            for how in ("loop", "scan")
        )
        assert_close(loop, scan)


def matrices(dtype: Any = jnp.float64) -> dict[str, Any]:
    """Weights with one matrix, with a tree of them, with blocks, and several."""
    lstm = jaxseq.lstm_init(KEY, 30, 40, dtype=dtype)
    before = jaxseq.gru_cell(reset_after=False).init(KEY, 30, 40, dtype=dtype)
    heads = jaxseq.lstm_cell(heads=4).init(KEY, 30, 40, dtype=dtype)
    model = jaxseq.seq2seq_init(
        KEY, source_vocab=5, embed_features=30, hidden_features=40, dtype=dtype
    )
    module = jaxseq.nn.GRU(30, 40, num_layers=2, rngs=nnx.Rngs(0), param_dtype=dtype)
    return {
        "one": lstm, "tree": before, "blocks": heads, "layers": (lstm, (lstm, before)),
        "model": model, "module": module.params,
    }  # fmt: skip


WEIGHTS = matrices()
is_w_h = lambda path: any(getattr(part, "name", None) == "w_h" for part in path)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_drop(name):
    params, rate = WEIGHTS[name], 0.3
    dropped = jaxseq.weight_drop(params, rate, key=KEY)
    assert jax.tree.structure(dropped) == jax.tree.structure(params)
    others = jax.tree.leaves(jaxseq.weight_drop(params, rate, key=jax.random.key(9)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    masks = []
    for (path, w), new, other in zip(
        leaves, jax.tree.leaves(dropped), others, strict=True
    ):
        if not is_w_h(path):
            assert new is w
            continue
        kept = np.asarray(new) != 0
        np.testing.assert_array_equal(new, np.where(kept, w / (1 - rate), 0))
        np.testing.assert_allclose(
            kept.mean(), 1 - rate, atol=5 * np.sqrt(rate * (1 - rate) / kept.size)
        )
        assert (kept != (np.asarray(other) != 0)).any()
        masks.append(kept)
    assert masks
    same = [
        (a, b) for i, a in enumerate(masks) for b in masks[:i] if a.shape == b.shape
    ]
    assert all((a != b).any() for a, b in same)
    # the gradient is that of what is kept
    loss = lambda params: weighted_sum(jaxseq.weight_drop(params, rate, key=KEY))
    grads = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    given = jax.tree.leaves(jax.grad(weighted_sum)(params))
    at = iter(masks)
    for (path, grad), g in zip(grads, given, strict=True):
        want = np.where(next(at), g / (1 - rate), 0) if is_w_h(path) else g
        np.testing.assert_allclose(grad, want, atol=1e-14)


def test_weight_drop_of_some_matrices():
    params = jaxseq.lstm_cell(cells=20).init(KEY, 5, 10)
    drop = partial(jaxseq.weight_drop, params, key=KEY)
    new = drop(jaxseq.Projected(0.5, 0.0)).w_h
    assert (new.gates == 0).any() and new.projection is params.w_h.projection
    np.testing.assert_array_equal(jax.jit(drop)(0.5).w_h.gates, new.gates)


GRU_PARAMS = jaxseq.gru_init(KEY, D, H)
LSTM_PARAMS = jaxseq.lstm_init(KEY, D, H)
X = jnp.ones((2, T, D), jnp.float32)
call = lambda *args, **options: (
    lambda: jaxseq.cell_dropout(*(args or (jaxseq.GRU, GRU_PARAMS, X)), **options)
)
RATE = "expected a probability in [0, 1), got"
ERRORS: dict[str, Callable[[], Any]] = {
    f"dropout: {RATE} 1.0": call(dropout=1.0, key=KEY),
    f"recurrent_dropout: {RATE} -0.1": call(recurrent_dropout=-0.1, key=KEY),
    f"recurrent_dropout: {RATE} None": call(recurrent_dropout=None, key=KEY),
    f"zoneout: {RATE} nan": call(zoneout=float("nan"), key=KEY),
    f"zoneout: {RATE} 1": call(zoneout=1, deterministic=True),
    "key: expected a random key for dropout, got None": call(recurrent_dropout=0.1),
    "key: expected a random key, got 3": call(key=3),
    "deterministic: expected True or False, got 1": call(deterministic=1),
    "cell: expected a Cell, got function": call(jaxseq.gru, GRU_PARAMS, X),
    "params: expected cells among ['LSTMParams', 'GRUParams', 'RNNParams', "
    "'CellParams'], got tuple": call(jaxseq.GRU, tuple(GRU_PARAMS), X),
    "x: expected an array, got list": call(jaxseq.GRU, GRU_PARAMS, [X]),
    "x: expected inputs of shape (..., T, D), got [(3,)]": call(
        jaxseq.GRU, GRU_PARAMS, X[0, 0]
    ),
    f"zoneout: {RATE} LSTMState(h=0.25, c=0.5)": call(zoneout=BOTH, key=KEY),
    "zoneout: expected a probability, or a tree of them like PyTreeDef(CustomNode("
    "namedtuple[LSTMState], [*, *])), got [0.5, 0.5]": call(
        jaxseq.LSTM, LSTM_PARAMS, X, zoneout=[0.5, 0.5], key=KEY
    ),
    f"rate: {RATE} 1.5": lambda: jaxseq.zoneout(jaxseq.GRU, 1.5),
    f"rate: {RATE} None": lambda: jaxseq.zoneout(jaxseq.GRU, None),
    f"rate: {RATE} 2": lambda: jaxseq.weight_drop(GRU_PARAMS, 2, key=KEY),
    "key: expected a random key for weight_drop, got None": lambda: jaxseq.weight_drop(
        GRU_PARAMS, 0.5
    ),
    "params: expected weights with w_h, or a tree with such, got ArrayImpl": lambda: (
        jaxseq.weight_drop(X, 0.5, key=KEY)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(ValueError) as e:
        ERRORS[message]()
    assert str(e.value) == message
