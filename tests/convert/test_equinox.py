"""Weights of Equinox, run by Equinox and by jaxseq, and there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import Network, from_equinox, to_equinox

eqx = pytest.importorskip("equinox")

B, T, D, H = 4, 6, 3, 5
LENGTHS = [6, 3, 1, 4]
NAMES = "weight_ih", "weight_hh", "bias", "bias_n"
CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def cells(name, layers, both, bias=True):
    """Of each layer a cell, or two."""
    widths = [D, *[H * (1 + both)] * (layers - 1)]
    keys = jax.random.split(jax.random.key(0), (layers, 2))
    make = lambda width, key: CELLS[name](width, H, use_bias=bias, key=key)
    made = [[make(w, k) for k in own] for w, own in zip(widths, keys, strict=True)]
    return [tuple(own) if both else own[0] for own in made]


def weights(layers):
    return [
        tuple(map(vars, own)) if type(own) is tuple else vars(own) for own in layers
    ]


def run(cell, x, states, reverse):
    """One row after the other, each as long as it is."""
    y, ends = np.zeros((B, T, H)), []
    for b, n in enumerate(LENGTHS):
        state = jax.tree.map(lambda a, b=b: a[b], states)
        for t in reversed(range(n)) if reverse else range(n):
            state = cell(x[b, t], state)
            y[b, t] = jax.tree.leaves(state)[0]
        ends.append(state)
    return y, jax.tree.map(lambda *a: jnp.stack(a), *ends)


def state(rng, name):
    h, c = jnp.asarray(rng.standard_normal((2, B, H)))
    return (h, c) if name == "lstm" else h


def ours(state):
    return jaxseq.LSTMState(*state) if type(state) is tuple else state


def check_runs(name, layers, network, reverse=False):
    rng = np.random.default_rng(0)
    x = y = jnp.asarray(rng.standard_normal((B, T, D)))
    first, ends = [], []
    for own in layers:
        pair = own if type(own) is tuple else (own,)
        begin = [state(rng, name) for _ in pair]
        each = list(zip(pair, begin, (reverse, True), strict=False))
        done = [run(cell, y, s, back) for cell, s, back in each]
        y = jnp.concatenate([a for a, _ in done], axis=-1)
        both = type(own) is tuple
        first.append(tuple(map(ours, begin)) if both else ours(begin[0]))
        ends.append([end for _, end in done])
    got, out = network(x, tuple(first), lengths=jnp.asarray(LENGTHS))
    np.testing.assert_allclose(out, y, rtol=0, atol=1e-12)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(ends), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layers, both", [(1, False), (2, True)])
@pytest.mark.parametrize("bias", [True, False])
def test_runs_as_in_equinox(name, layers, both, bias):
    made = cells(name, layers, both, bias)
    check_runs(name, made, from_equinox(weights(made)))


@pytest.mark.parametrize("name", CELLS)
def test_one_cell_backwards(name):
    (cell,) = cells(name, 1, False)
    check_runs(name, [cell], from_equinox(vars(cell), reverse=True), reverse=True)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(name, bias):
    made = cells(name, 2, True, bias)
    network = from_equinox(weights(made))
    again = to_equinox(network)
    for own, back in zip(made, again, strict=True):
        for cell, arrays in zip(own, back, strict=True):
            want = {k: np.asarray(a) for k, a in vars(cell).items() if k in NAMES}
            want = {k: a for k, a in want.items() if a.dtype != object}
            assert sorted(arrays) == sorted(want)
            assert all(arrays[k].tobytes() == want[k].tobytes() for k in want)
    same = jax.tree.map(np.array_equal, from_equinox(again), network)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("b_hn", [H, 3 * H])
def test_into_equinox(name, b_hn):
    """Weights that begin in jaxseq, with two biases."""
    rng = np.random.default_rng(1)
    Z = 4 * H if name == "lstm" else 3 * H
    shapes = (D, Z), (H, Z), (Z,), (Z if name == "lstm" else b_hn,)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    cell = jaxseq.LSTM if name == "lstm" else jaxseq.GRU
    kind = jaxseq.LSTMParams if name == "lstm" else jaxseq.GRUParams
    network = Network((kind(*arrays),), cell)
    (found,) = to_equinox(network)
    (module,) = cells(name, 1, False)
    where = lambda cell: [getattr(cell, k) for k in found]
    values = list(map(jnp.asarray, found.values()))
    check_runs(name, [eqx.tree_at(where, module, values)], network)


def good(name="lstm", **how):
    rng, Z = np.random.default_rng(0), {"lstm": 4, "gru": 3}[name] * H
    shapes = {"weight_ih": (Z, how.get("D", D)), "weight_hh": (Z, H), "bias": (Z,)}
    shapes |= {"bias_n": (H,)} if name == "gru" else {}
    return {k: rng.standard_normal(shape) for k, shape in shapes.items()}


def without(weights, key):
    return {k: a for k, a in weights.items() if k != key}


WRONG = {
    "a missing key": (
        without(good(), "weight_hh"),
        "weights: expected a key 'weight_hh', got 'bias', 'weight_ih'",
    ),
    "one bias of a GRU": (without(good("gru"), "bias_n"), "a key 'bias_n'"),
    "a wrong gate count": (
        good() | {"weight_hh": np.ones((10, 5))},
        r"weight_hh: expected shape \(3H, H\) or \(4H, H\), got \(10, 5\)",
    ),
    "transposed": (
        good() | {"weight_ih": good()["weight_ih"].T},
        r"weight_ih: expected shape \(20, \*\), got \(3, 20\)",
    ),
    "transposed h": (
        good() | {"weight_hh": good()["weight_hh"].T},
        r"weight_hh: expected shape \(3H, H\) or \(4H, H\), got \(5, 20\)",
    ),
    "one left over": (
        good() | {"scale": np.ones(3)},
        "weights: expected no other names, got 'scale'",
    ),
    "a wrong layer above": (
        [good(), good()],
        r"1/weight_ih: expected shape \(20, 5\), got \(20, 3\)",
    ),
    "mixed layers": (
        [good(), good("gru", D=H)],
        "1/weight_ih: expected an LSTM, as the first layer, got a GRU",
    ),
    "one direction and two": (
        [(good(), good()), good(D=2 * H)],
        "1/weight_ih: expected 2",
    ),
    "three directions": ((good(),) * 3, "weights: expected a pair .*, got 3"),
    "dtypes": (good() | {"bias": np.ones(20, "f")}, "bias: expected dtype float64"),
    "nothing": ([], "weights: expected those of at least one layer, got none"),
    "no mapping": (np.ones(3), "weights: expected a mapping .*, got ndarray"),
    "unknown": (
        {"a": {"b": good()}, "c": {"d": good()}},
        "weights: expected a cell, .* weights at 'a/b/', 'c/d/'",
    ),
    "modules": (
        cells("lstm", 2, False),
        r"weights/0: expected arrays by name, such as vars\(cell\), got LSTMCell",
    ),
    "a module": (cells("gru", 1, False)[0], r"such as vars\(cell\), .* got GRUCell"),
}


@pytest.mark.parametrize("weights, message", WRONG.values(), ids=WRONG)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        from_equinox(weights)


def test_wrong_options():
    with pytest.raises(ValueError, match="merge: expected one of"):
        from_equinox(good(), merge="ave")
    with pytest.raises(ValueError, match="reverse: expected False for two directions"):
        from_equinox((good(), good()), reverse=True)
    with pytest.raises(ValueError, match="weight_ih: expected a width of 5, to add"):
        wide = {"weight_ih": np.ones((24, D)), "weight_hh": np.ones((24, 6))}
        from_equinox((good(), wide), merge="sum")


HAS_NOT = {
    "rnn": (
        jaxseq.RNN,
        "network.cell: expected a cell that Equinox has: jaxseq.G",
    ),
    "clip": (jaxseq.lstm_cell(clip=1.0), "network.cell: expected a cell that"),
    "before": (
        jaxseq.gru_cell(reset_after=False),
        "network.cell: expected a reset gate",
    ),
    "peepholes": (
        jaxseq.lstm_cell(peepholes=True),
        r"layers\[0\]: expected no peepholes",
    ),
    "projection": (
        jaxseq.lstm_cell(cells=7),
        r"layers\[0\]: expected no projection",
    ),
    "heads": (jaxseq.gru_cell(heads=5), "network.cell: expected a cell that"),
}


@pytest.mark.parametrize("cell, message", HAS_NOT.values(), ids=HAS_NOT)
def test_what_equinox_has_not(cell, message):
    params = cell.init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=message):
        to_equinox(Network((params,), cell))
