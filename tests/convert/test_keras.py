"""Weights of Keras 3, run by Keras on JAX and by jaxseq, and there and back."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import Network, from_keras, to_keras

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")

# from Keras's own `get_weights`
own = "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
pytestmark = pytest.mark.filterwarnings(own)

B, T, D, H = 4, 6, 3, 5
LENGTHS = [6, 3, 1, 4]
LAYERS = {
    "rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "before": lambda H, **how: keras.layers.GRU(H, reset_after=False, **how),
}
MEAN = {"ave": "mean"}
# Keras computes in float32 where JAX would in float64
NEAR = {"rtol": 2e-6, "atol": 2e-6}


def layers_of(name, n=1, merge_mode=None, seed=0, **how):
    """Layers with random weights; Bidirectional if there is a merge mode."""
    rng, made, width = np.random.default_rng(seed), [], D
    for _ in range(n):
        how |= {"return_sequences": True, "return_state": True}
        layer = LAYERS[name](H, **how)
        if merge_mode is not None:
            layer = keras.layers.Bidirectional(layer, merge_mode=merge_mode)
        layer.build((B, T, width))
        shapes = [a.shape for a in layer.get_weights()]
        layer.set_weights([rng.standard_normal(s).astype("f") for s in shapes])
        made.append(layer)
        width = 2 * H if merge_mode == "concat" else H
    return made


def weights(layers):
    return [layer.get_weights() for layer in layers]


def configs(layers):
    return [layer.get_config() for layer in layers]


def check_runs(layers, network, backwards=False):
    rng = np.random.default_rng(2)
    draw = lambda: jnp.asarray(rng.standard_normal((B, H)).astype("f"))
    x = y = jnp.asarray(rng.standard_normal((B, T, D)).astype("f"))
    valid = jnp.arange(T) < jnp.array(LENGTHS)[:, None]
    both = isinstance(layers[0], keras.layers.Bidirectional)
    lstm = "LSTM" in type(getattr(layers[0], "forward_layer", layers[0])).__name__
    first, ends = [], []
    for layer in layers:
        begin = [draw() for _ in range((1 + lstm) * (1 + both))]
        y, *end = layer(y, initial_state=begin, mask=valid)
        pairs = zip(begin[::2], begin[1::2], strict=False)
        each = [jaxseq.LSTMState(*pair) for pair in pairs] if lstm else begin
        first.append(tuple(each) if both else each[0])
        ends += end
    got, out = network(x, tuple(first), lengths=jnp.array(LENGTHS))
    y = jnp.flip(y, 1) if backwards else y
    want = jnp.where(valid[..., None], y, 0)
    np.testing.assert_allclose(out, want, **NEAR)
    for a, b in zip(jax.tree.leaves(got), ends, strict=True):
        np.testing.assert_allclose(a, b, **NEAR)


@pytest.mark.every(5)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("n, merge_mode", [(1, None), (2, "concat"), (2, None)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_runs_as_in_keras(name, n, merge_mode, use_bias):
    made = layers_of(name, n, merge_mode, use_bias=use_bias)
    without = {} if use_bias or name != "before" else {"reset_after": False}
    check_runs(made, from_keras(weights(made), **without))


@pytest.mark.parametrize("merge_mode", ["sum", "ave"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_merge_modes(name, merge_mode):
    made = layers_of(name, 2, merge_mode)
    network = from_keras(weights(made), merge=MEAN.get(merge_mode, merge_mode))
    check_runs(made, network)


@pytest.mark.parametrize("name", LAYERS)
def test_go_backwards(name):
    made = layers_of(name, go_backwards=True)
    network = from_keras(made[0].get_weights(), reverse=True)
    check_runs(made, network, backwards=True)


HOW = [
    {"activation": "relu"},
    {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    {"use_bias": False},
    {},
]


@pytest.mark.every(3)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("merge_mode", [None, "ave"])
def test_configs(name, how, merge_mode):
    how = {k: f for k, f in how.items() if name != "rnn" or k != "recurrent_activation"}
    made = layers_of(name, 2, merge_mode, **how)
    network = from_keras(weights(made), config=configs(made))
    check_runs(made, network)
    said = {k: a for k, a in how.items() if k != "use_bias"}
    said |= {"reset_after": False} if name == "before" else {}
    said |= {} if merge_mode is None else {"merge": "mean"}
    assert jax.tree.structure(from_keras(weights(made), **said)) == jax.tree.structure(
        network
    )


CELLS = {
    "SimpleRNNCell": {"activation": "relu"},
    "LSTMCell": {"activation": "relu", "recurrent_activation": "tanh"},
    "GRUCell": {"activation": "softsign", "reset_after": False},
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("both", [False, True])
def test_configs_of_cells(name, both):
    layer = keras.layers.RNN(getattr(keras.layers, name)(H, **CELLS[name]), True, True)
    layer = keras.layers.Bidirectional(layer) if both else layer
    layer.build((B, T, D))
    network = from_keras(layer.get_weights(), config=layer.get_config())
    plain = from_keras(layer.get_weights(), **CELLS[name])
    assert jax.tree.structure(network) == jax.tree.structure(plain)
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype("f")
    np.testing.assert_allclose(network(x)[1], layer(x)[0], **NEAR)


def test_a_config_that_goes_backwards():
    (layer,) = layers_of("gru", go_backwards=True)
    network = from_keras(layer.get_weights(), config=layer.get_config())
    assert network.reverse
    check_runs([layer], network, backwards=True)


ACTIVATIONS = (
    "celu elu exponential gelu hard_sigmoid hard_silu hard_tanh leaky_relu linear"
    " log_sigmoid mish relu relu6 selu sigmoid silu softplus softsign sparse_plus"
    " sparse_sigmoid squareplus swish tanh"
)


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_activations(name):
    arrays = [np.ones((D, H), "f"), np.ones((H, H), "f")]
    network = from_keras(arrays, activation=name)
    x = jnp.linspace(-8, 8, 101, dtype=jnp.float32)
    want = keras.activations.get(name)(x)
    got = network.cells[0].update.activation(x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-6)


def test_the_hard_sigmoid_of_keras_2():
    """max(0, min(1, 0.2 x + 0.5)), given as a function to both."""
    old = lambda x: jnp.clip(0.2 * x + 0.5, 0, 1)
    made = layers_of("lstm", recurrent_activation=old)
    gate = jaxseq.activation("hard_sigmoid")
    check_runs(made, from_keras(weights(made), recurrent_activation=gate))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("merge_mode", [None, "concat"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_there_and_back(name, merge_mode, use_bias):
    made = layers_of(name, 2, merge_mode, use_bias=use_bias)
    network = from_keras(weights(made), config=configs(made))
    back = to_keras(network)
    for own, again in zip(weights(made), back, strict=True):
        for a, b in zip(own, again, strict=True):
            assert a.shape == b.shape and a.tobytes() == b.tobytes()
    again = from_keras(back, config=configs(made))
    assert jax.tree.structure(again) == jax.tree.structure(network)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again, network)))
    other = layers_of(name, 2, merge_mode, seed=1, use_bias=use_bias)
    for layer, own in zip(other, back, strict=True):
        layer.set_weights(own)
    check_runs(other, network)


def drawn(name, Z_h):
    """Weights that begin in jaxseq, with two biases, the second of this width."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape).astype("f")
    Z = {"rnn": 1, "lstm": 4}.get(name, 3) * H
    w_x, w_h, b, b_h = draw(D, Z), draw(H, Z), draw(Z), draw(Z_h or Z)
    if name == "before":
        w_h = jaxseq.ResetBefore(draw(H, 2 * H), draw(H, H))
        return jaxseq.CellParams(w_x, w_h, b, b_h), jaxseq.gru_cell(reset_after=False)
    kind = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[name]
    return getattr(jaxseq, kind + "Params")(w_x, w_h, b, b_h), getattr(jaxseq, kind)


@pytest.mark.parametrize(
    "name, Z_h",
    [("rnn", None), ("lstm", None), ("gru", None), ("gru", H), ("before", H)],
)
def test_into_keras(name, Z_h):
    params, cell = drawn(name, Z_h)
    params = jax.tree.map(lambda a: a, params)
    for biases in ([params[2], params[3]], [params[2], None], [None, params[3]]):
        own = type(params)(*params[:2], *biases)
        network = Network((own,), cell)
        kept = jax.tree.map(np.copy, network)
        (arrays,) = to_keras(network)
        (layer,) = layers_of(name)
        layer.set_weights(arrays)
        check_runs([layer], network)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, kept, network)))


def good(gates=4, D=D, bias=True, H=H):
    shapes = [(D, gates * H), (H, gates * H), (gates * H,)]
    return [np.ones(shape, "f") for shape in shapes[: 2 + bias]]


def changed(arrays, i, a):
    return [*arrays[:i], a, *arrays[i + 1 :]]


WRONG = {
    "too few": (good()[:1], r"weights\[0\]: expected 2 or 3 arrays .*, got 1"),
    "five": (good() + good()[:2], r"weights\[0\]: expected 2 or 3 arrays .*, got 5"),
    "transposed": (
        changed(good(), 0, np.ones((20, 3), "f")),
        r"weights\[0\]\[0\] \(kernel\): expected shape \(\*, 20\), got \(20, 3\)",
    ),
    "transposed h": (
        changed(good(), 1, np.ones((20, 5), "f")),
        r"\[1\] \(recurrent_kernel\): expected shape \(H, H\) .*, got \(20, 5\)",
    ),
    "a gate count": (
        good(2),
        r"\(recurrent_kernel\): expected shape .* or \(H, 4H\), got \(5, 10\)",
    ),
    "a bias": (
        changed(good(), 2, np.ones(19, "f")),
        r"weights\[0\]\[2\] \(bias\): expected shape \(20,\), got \(19,\)",
    ),
    "a bias of a GRU": (
        changed(good(3), 2, np.ones((3, 15), "f")),
        r"\(bias\): expected shape \(2, 15\), got \(3, 15\)",
    ),
    "a layer above": (
        [good(), good()],
        r"weights\[1\]\[0\] \(kernel\): expected shape \(5, 20\), got \(3, 20\)",
    ),
    "mixed layers": (
        [good(), good(1, D=H)],
        r"weights\[1\]\[0\] \(kernel\): expected an LSTM, as the first layer",
    ),
    "mixed resets": (
        [good(3), changed(good(3, D=H), 2, np.ones((2, 15), "f"))],
        r"weights\[1\]\[0\] \(kernel\): expected a reset gate or a projection as",
    ),
    "one direction and two": (
        [good(), good(D=H) * 2],
        r"weights\[1\]\[0\] \(kernel\): expected 1 direction",
    ),
    "dtypes": (
        changed(good(), 2, np.ones(20)),
        r"weights\[0\]\[2\] \(bias\): expected dtype float32, got float64",
    ),
    "an array": (np.ones(3), "weights: expected layer.get_weights.*, got ndarray"),
    "nothing": ([], "weights: expected layer.get_weights"),
}


@pytest.mark.parametrize("arrays, message", WRONG.values(), ids=WRONG)
def test_wrong_weights(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_keras(arrays)


GOOD = {"activation": "tanh", "unit_forget_bias": True}
OWN = {"module": "keras.layers", "class_name": "LeakyReLU"}
BACK = {"config": GOOD | {"go_backwards": True}}
OPTIONS = {
    "another kind": (
        {"config": {"activation": "tanh", "reset_after": True}},
        r"config\[0\]: expected that of an LSTM, as the weights are, got that of a GRU",
    ),
    "units": (
        {"config": GOOD | {"units": 99}},
        r"\[0\]\.units: expected 5, .* 99",
    ),
    "bias": ({"config": GOOD | {"use_bias": False}}, r"\]\.use_bias: expected True"),
    "empty": ({"config": {}}, r"config\[0\]: expected that of a SimpleRNN"),
    "stacked": (
        {"config": {"cell": {"class_name": "StackedRNNCells", "config": {}}}},
        "an RNN with a cell of one, got no activation in StackedRNNCells",
    ),
    "both": (
        {"config": GOOD, "activation": "relu"},
        "config: expected no other options, all of which it says",
    ),
    "a layer": (
        {"config": GOOD | {"activation": OWN}},
        "pass a function of your own as `activation`, without `config`, got a function",
    ),
    "backwards": (
        {"config": {"layer": BACK, "merge_mode": "sum"}},
        "a Bidirectional whose first layer runs forward, got one with go_backwards",
    ),
    "directions": (
        {
            "config": {
                "layer": {"config": GOOD},
                "backward_layer": {"config": GOOD | {"activation": "relu"}},
                "merge_mode": "sum",
            }
        },
        "expected activation='tanh', as of its forward layer, got activation='relu'$",
    ),
    "activation": ({"activation": "glu"}, "activation: expected one of"),
    "gate": ({"recurrent_activation": None}, "recurrent_activation: expected one of"),
    "mul": (
        {"config": {"layer": {"config": GOOD}, "merge_mode": "mul"}},
        r"config\[0\]\.merge_mode: expected one of .*, got 'mul'",
    ),
    "ave": ({"merge": "ave"}, "merge: expected one of .*, got 'ave'"),
    "flag": ({"reverse": 1}, "reverse: expected True or False"),
    "reset": ({"reset_after": 1}, "reset_after: expected True or False"),
    "configs": ({"config": [GOOD, GOOD]}, "config: expected one for each of 1 layers"),
    "config": ({"config": 3}, r"config: expected layer\.get_config"),
}


@pytest.mark.parametrize("options, message", OPTIONS.values(), ids=OPTIONS)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        from_keras(good(), **options)


def test_wrong_together():
    two = [good(), good(D=H)]
    with pytest.raises(ValueError, match="reverse: expected False for several"):
        from_keras(two, reverse=True)
    with pytest.raises(ValueError, match=r"\(bias\): expected shape \(2, 15\)"):
        from_keras(good(3), reset_after=True)
    message = r"config\[1\]: expected activation='tanh', as of the first layer, got"
    with pytest.raises(ValueError, match=message):
        from_keras(two, config=[GOOD, GOOD | {"activation": "relu"}])
    with pytest.raises(ValueError, match="reverse: expected False for two directions"):
        from_keras(good() * 2, reverse=True)


HAS_NOT = {
    "clip": (jaxseq.lstm_cell(clip=1.0), "network.cell: expected a cell that Keras"),
    "output": (
        jaxseq.lstm_cell(output=jax.nn.relu),
        "one activation of candidate and .*, got candidate=tanh and output=relu",
    ),
    "peepholes": (
        jaxseq.lstm_cell(peepholes=True),
        r"layers\[0\]: expected no peepholes",
    ),
    "projection": (
        jaxseq.lstm_cell(cells=7),
        r"layers\[0\]: expected no projection",
    ),
}


@pytest.mark.parametrize("cell, message", HAS_NOT.values(), ids=HAS_NOT)
def test_what_keras_has_not(cell, message):
    params = cell.init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=message):
        to_keras(Network((params,), cell))


def test_what_keras_has_not_of_networks():
    params = jaxseq.lstm_init(jax.random.key(0), H, H)
    with pytest.raises(ValueError, match="reverse: expected False for several"):
        to_keras(Network((params,) * 2, jaxseq.LSTM, reverse=True))
