"""Networks as models of ONNX: run by ONNX Runtime, and back again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq import activation
from jaxseq.convert import Network, from_onnx, to_onnx
from tests.convert.onnx_nodes import arrays, checked, close, model, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

B, T, D, H = 4, 6, 3, 5
LENGTHS = np.array([6, 2, 1, 4], np.int32)
CELLS = {
    "RNN": jaxseq.RNN,
    "LSTM": jaxseq.LSTM,
    "GRU": jaxseq.GRU,
    "relu": jaxseq.rnn_cell(activation=jax.nn.relu, clip=0.7),
    "softsign": jaxseq.rnn_cell(activation=jax.nn.soft_sign),
    "scaled": jaxseq.rnn_cell(activation=activation("scaled_tanh", alpha=0.7, beta=2)),
    "peepholes": jaxseq.lstm_cell(peepholes=True, clip=0.5),
    "coupled": jaxseq.lstm_cell(coupled=True, gate=activation("hard_sigmoid")),
    "others": jaxseq.lstm_cell(
        gate=activation("affine", alpha=0.3, beta=0.4),
        candidate=activation("elu"),
        output=activation("leaky_relu", alpha=0.2),
    ),
    "before": jaxseq.gru_cell(reset_after=False),
    "clipped": jaxseq.gru_cell(clip=0.4, candidate=jax.nn.softplus),
    "thresholded": jaxseq.gru_cell(
        candidate=activation("thresholded_relu", alpha=0.1), reset_after=False
    ),
}


def drawn(cell, below, *, second_bias=True, seed=0, dtype=np.float32):
    """Weights of a layer at random, the biases and peepholes too."""
    params = cell.init(jax.random.key(seed), below, H, dtype=dtype)
    rng = np.random.default_rng(seed)
    random = lambda *shape: rng.uniform(-0.6, 0.6, shape).astype(dtype)
    params = jax.tree.map(lambda a: random(*a.shape), params)
    if not second_bias:
        return params
    b_h, last = random(*params.b.shape), params._fields[-1]
    if type(params) is jaxseq.CellParams and params.w_x.shape[1] == 4 * H:
        own = getattr(params.extra, "peepholes", None)
        return params._replace(extra=jaxseq.LSTMExtra(b_h, own))
    return params._replace(**{last: b_h})


def network_of(cell, layers=1, both=False, **how):
    own, below = [], D
    for i in range(layers):
        pair = [drawn(cell, below, seed=2 * i + k, **how) for k in (0, 1)]
        own.append(tuple(pair) if both else pair[0])
        below = 2 * H if both else H
    return Network(tuple(own), cell)


def states(network):
    """First states of jaxseq and of ONNX."""
    rng, ours, theirs = np.random.default_rng(1), [], {}
    cell = network.cells[0]
    for i, own in enumerate(network.layers):
        each = own if type(own) is tuple else (own,)
        zeros = [cell.zeros(params, B) for params in each]
        draw = lambda a: rng.standard_normal(a.shape).astype(a.dtype)
        found = jax.tree.map(draw, zeros)
        ours.append(tuple(found) if len(found) == 2 else found[0])
        leaves = jax.tree.leaves(found)
        parts = ["h", "c"][: len(leaves) // len(each)]
        for k, part in enumerate(parts):
            theirs[f"initial_{part}_{i}"] = np.stack(leaves[k :: len(parts)])
    return tuple(ours), theirs


def ends(state):
    """Final states as ONNX gives them."""
    found = []
    for own in state:
        each = own if type(own) is tuple else (own,)
        leaves = [np.asarray(a) for a in jax.tree.leaves(each)]
        n = len(leaves) // len(each)
        found += [np.stack(leaves[k::n]) for k in range(n)]
    return found


@pytest.mark.every(7)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("layers, both", [(1, False), (2, True), (3, False)])
def test_runs_in_onnx_runtime(name, layers, both):
    network = network_of(CELLS[name], layers, both)
    proto = checked(to_onnx(network, lengths=True, state=True))
    ours, theirs = states(network)
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    want = run(proto, {"x": x, "lengths": LENGTHS, **theirs})
    state, y = network(x, ours, lengths=LENGTHS)
    close([np.asarray(y), *ends(state)], want)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_from_the_last_step(name):
    network = network_of(CELLS[name], 2)
    network = Network(network.layers, network.cell, reverse=True)
    proto = checked(to_onnx(network, lengths=True))
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    state, y = network(x, lengths=LENGTHS)
    want = run(proto, {"x": x, "lengths": LENGTHS})
    close([np.asarray(y), *ends(state)], want)
    assert all(layer.network.reverse for layer in from_onnx(proto).values())


@pytest.mark.parametrize("merge", ["concat", "sum", "mean"])
@pytest.mark.parametrize("opset", [14, 17, 22, onnx.defs.onnx_opset_version()])
def test_merges_in_every_opset(merge, opset):
    own = [drawn(jaxseq.GRU, D, seed=k) for k in (0, 1)]
    network = Network((tuple(own),), jaxseq.GRU, merge=merge)
    proto = checked(to_onnx(network, opset=opset))
    assert proto.opset_import[0].version == opset
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    state, y = network(x)
    close([np.asarray(y), *ends(state)], run(proto, {"x": x}))


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_step_by_step(name):
    """Final states are the initial ones of the next call, of other sizes."""
    network = network_of(CELLS[name], 2)
    proto = to_onnx(network, state=True)
    names = [own.name for own in proto.graph.output]
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    _, theirs = states(network)
    feeds = jax.tree.map(np.zeros_like, theirs)
    found = []
    for steps in (x[:, :1], x[:, 1:4], x[:, 4:]):
        out = dict(zip(names, run(proto, {"x": steps, **feeds}), strict=True))
        found.append(out.pop("y"))
        feeds = {k.replace("final", "initial"): a for k, a in out.items()}
    _, y = network(x)
    close([np.concatenate(found, axis=1)], [np.asarray(y)])


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("both", [False, True])
def test_there_and_back(name, both):
    network = network_of(CELLS[name], 2, both)
    found = from_onnx(to_onnx(network))
    assert [*found] == [f"{key.split('_')[0]}_{i}" for i, key in enumerate(found)]
    for layer, own in zip(found.values(), network.layers, strict=True):
        assert layer.network.cell == network.cell
        (again,) = layer.network.layers
        assert jax.tree.structure(again) == jax.tree.structure(own)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(own), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("plain", [False, True])
def test_back_and_there(kind, plain):
    """A node, its network, and the node of that, bit by bit."""
    given = ["B"] + (["P"] if kind == "LSTM" and not plain else [])
    inputs = arrays(kind, 2, given)
    how = {"direction": "bidirectional"}
    if not plain:
        own = {"LSTM": {"input_forget": 1}, "GRU": {"linear_before_reset": 1}}
        names = ["HardSigmoid", "LeakyRelu", "Affine"][-len(arrays_of(kind)) :]
        how |= {"clip": 0.3, "activations": [*names, *names], **own.get(kind, {})}
        alpha, beta = [0.1] * 2 * len(names), [0.7] * 2 * len(names)
        how |= {"activation_alpha": alpha, "activation_beta": beta}
    (layer,) = from_onnx(model(kind, inputs, **how)).values()
    proto = to_onnx(layer.network)
    found = {a.name: onnx.numpy_helper.to_array(a) for a in proto.graph.initializer}
    for key in ("W", "R", *given):
        assert found[f"{key}_0"].tobytes() == inputs[key].tobytes()
    (again,) = from_onnx(proto).values()
    assert again.network.cell == layer.network.cell


def arrays_of(kind):
    return {"RNN": "f", "LSTM": "fgh", "GRU": "fg"}[kind]


def test_biases_that_are_not_there():
    """None are none, and where one is missing it is zero."""
    params = drawn(jaxseq.LSTM, D, second_bias=False)
    none = params._replace(b=None)
    (layer,) = from_onnx(to_onnx(Network((none,), jaxseq.LSTM))).values()
    assert layer.network.layers[0].b is None
    (layer,) = from_onnx(to_onnx(Network((params,), jaxseq.LSTM))).values()
    assert np.array_equal(layer.network.layers[0].b, params.b)
    assert not layer.network.layers[0].b_h.any()
    gru = drawn(jaxseq.GRU, D, second_bias=False)._replace(b_hn=np.ones(H, np.float32))
    (layer,) = from_onnx(to_onnx(Network((gru,), jaxseq.GRU))).values()
    got = layer.network.layers[0].b_hn
    assert not got[: 2 * H].any() and np.array_equal(got[2 * H :], gru.b_hn)


def test_activations_of_each_direction():
    cells = jaxseq.GRU, jaxseq.gru_cell(candidate=activation("elu", alpha=0.5))
    own = [drawn(cell, D, seed=k) for k, cell in enumerate(cells)]
    network = Network((tuple(own),), cells)
    proto = checked(to_onnx(network))
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    state, y = network(x)
    close([np.asarray(y), *ends(state)], run(proto, {"x": x}))
    (layer,) = from_onnx(proto).values()
    assert layer.network.cells == cells


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "peepholes", "before"])
def test_float64(name):
    """By ONNX's own reference, for ONNX Runtime has no float64 here."""
    from onnx.reference import ReferenceEvaluator

    cell = jaxseq.lstm_cell(peepholes=True) if name == "peepholes" else CELLS[name]
    network = network_of(cell, 2, dtype=np.float64)
    proto = checked(to_onnx(network))
    x = np.random.default_rng(0).standard_normal((B, T, D))
    state, y = network(x)
    want = ReferenceEvaluator(proto).run(None, {"x": x})
    close([np.asarray(y), *ends(state)], want, 1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_a_whole_model(bias):
    """Of tokens: an embedding, layers, and a linear layer on top."""
    V, K = 11, 7
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    network = network_of(jaxseq.LSTM, 2, both=True)
    table, w, b = draw(V, D), draw(2 * H, K) / 4, draw(K) if bias else None
    options = {"embedding": table, "dense": (w, b), "lengths": True}
    proto = checked(to_onnx(network, **options))
    tokens = rng.integers(0, V, (B, T))
    state, y = network(table[tokens], lengths=LENGTHS)
    logits = np.asarray(y @ w + (0 if b is None else b))
    want = run(proto, {"tokens": tokens, "lengths": LENGTHS})
    close([logits, *ends(state)], want)


def test_functions_of_jax():
    """Those with a number come back as the same with that number."""
    elu, leaky_relu = activation("elu"), activation("leaky_relu")
    of = {jax.nn.elu: elu, jax.nn.leaky_relu: leaky_relu}
    of |= {f: f for f in (jax.nn.relu, jax.nn.soft_sign, jax.nn.softplus)}
    for f, back in of.items():
        cell = jaxseq.rnn_cell(activation=f)
        network = Network((drawn(cell, D),), cell)
        (layer,) = from_onnx(to_onnx(network)).values()
        assert layer.network.cell.update.activation == back
        x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
        want, _ = run(to_onnx(network), {"x": x})
        close([np.asarray(network(x)[1])], [want])


def test_arrays_of_jax_under_other_names():
    params = jaxseq.rnn_init(jax.random.key(0), D, H)
    proto = to_onnx(Network((params,), jaxseq.RNN))
    (layer,) = from_onnx(proto).values()
    assert np.array_equal(layer.network.layers[0].w_x, params.w_x)


ONE = drawn(jaxseq.LSTM, D)
GRU = drawn(jaxseq.GRU, D)
BEFORE = jaxseq.gru_cell(reset_after=False)
HEADS = jaxseq.lstm_cell(heads=5)
NORM = jaxseq.lstm_cell(layer_norm=True)
NARROW = jaxseq.lstm_cell(cells=7)
WRONG = {
    "a projection": (
        Network((NARROW.init(jax.random.key(0), D, H),), NARROW),
        {},
        r"network\.layers\[0\]: expected no projection, for ONNX has none",
    ),
    "layer norm": (
        Network((NORM.init(jax.random.key(0), D, H),), NORM),
        {},
        r"network\.layers\[0\]: expected no layer normalization, for ONNX has none",
    ),
    "heads": (
        Network((HEADS.init(jax.random.key(0), D, H),), HEADS),
        {},
        r"network\.cell: expected 1 head, for ONNX has no more, got 5",
    ),
    "another function": (
        Network((ONE,), jaxseq.lstm_cell(gate=jnp.sin)),
        {},
        r"network\.cell: expected functions that ONNX has",
    ),
    "a cell of one's own": (
        Network((ONE,), jaxseq.LSTM._replace(update=lambda z_x, h, w_h, _: h)),
        {},
        r"network\.cell: expected a cell that ONNX has",
    ),
    "two kinds": (
        Network(((ONE, GRU),), (jaxseq.LSTM, jaxseq.GRU)),
        {},
        r"network\.cell: expected cells that differ in activations alone",
    ),
    "two clips": (
        Network(((ONE, ONE),), (jaxseq.LSTM, jaxseq.lstm_cell(clip=1.0))),
        {},
        r"network\.cell: expected cells that differ in activations alone",
    ),
    "resets before and after": (
        Network(((drawn(BEFORE, D), GRU),), (BEFORE, jaxseq.GRU)),
        {},
        r"network\.layers\[0\]: expected reset gates of both directions",
    ),
    "a bias in one direction": (
        Network(((ONE, ONE._replace(b=None, b_h=None)),), jaxseq.LSTM),
        {},
        r"network\.layers\[0\]: expected the same widths, and B in both directions",
    ),
    "no merge": (
        Network(((ONE, ONE),), jaxseq.LSTM, merge=None),
        {},
        r"network\.merge: expected one of \('concat', 'sum', 'mean'\), got None",
    ),
    "layers that do not fit": (
        Network((ONE, ONE), jaxseq.LSTM),
        {},
        r"network\.layers\[1\].w_x: expected inputs 5 wide",
    ),
    "two dtypes": (
        Network((ONE._replace(b=np.ones(4 * H)),), jaxseq.LSTM),
        {},
        r"network\.layers\[0\]: expected one dtype of all weights",
    ),
    "an old opset": (
        Network((ONE,), jaxseq.LSTM),
        {"opset": 13},
        "opset: expected a version from 14 to",
    ),
    "an embedding": (
        Network((ONE,), jaxseq.LSTM),
        {"embedding": np.ones((4, 2), np.float32)},
        r"network\.layers\[0\]: expected inputs 2 wide, got 3",
    ),
    "a linear layer": (
        Network((ONE,), jaxseq.LSTM),
        {"dense": (np.ones((4, 2), np.float32), None)},
        r"dense\[0\]: expected shape \(5, \*\), got \(4, 2\)",
    ),
    "its bias": (
        Network((ONE,), jaxseq.LSTM),
        {"dense": (np.ones((5, 2), np.float32), np.ones(3, np.float32))},
        r"dense\[1\]: expected shape \(2,\), got \(3,\)",
    ),
    "no network": (ONE, {}, "network: expected a Network, got LSTMParams"),
}


@pytest.mark.parametrize("network, how, message", WRONG.values(), ids=WRONG)
def test_what_onnx_has_not(network, how, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(network, **how)
