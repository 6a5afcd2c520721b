"""Weights of Haiku, run by Haiku and by jaxseq, and there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import Network, from_haiku, to_haiku

hk = pytest.importorskip("haiku")

B, T, D, H = 4, 6, 3, 5
LENGTHS = [6, 3, 1, 4]
CORES = {
    "rnn": hk.VanillaRNN,
    "one bias": lambda H: hk.VanillaRNN(H, double_bias=False),
    "gru": hk.GRU,
    "lstm": hk.LSTM,
}


def deep(name, layers):
    """Runs layers over one row."""

    def apply(x, state, reverse=False):
        core = hk.DeepRNN([CORES[name](H) for _ in range(layers)])
        y, end = hk.dynamic_unroll(core, x, state, reverse=reverse)
        return y, end

    return hk.without_apply_rng(hk.transform(apply))


def params_of(name, layers, seed=0):
    one = jax.tree.map(lambda a: a[0], state(np.random.default_rng(0), name, layers))
    shapes = deep(name, layers).init(jax.random.key(0), jnp.ones((T, D)), one)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape), shapes)


def state(rng, name, layers):
    parts = jnp.asarray(rng.standard_normal((layers, 2, B, H)))
    return tuple(hk.LSTMState(*own) if name == "lstm" else own[0] for own in parts)


def ours(state):
    own = lambda s: jaxseq.LSTMState(*s) if isinstance(s, tuple) else s
    return tuple(map(own, state))


def run(name, params, x, first, reverse=False):
    """One row after the other, each as long as it is."""
    y, ends = np.zeros((B, T, H)), []
    apply = deep(name, len(first)).apply
    for b, n in enumerate(LENGTHS):
        begin = jax.tree.map(lambda a, b=b: a[b], first)
        y[b, :n], end = apply(params, x[b, :n], begin, reverse)
        ends.append(end)
    return y, jax.tree.map(lambda *a: jnp.stack(a), *ends)


def check_runs(name, params, network, layers, reverse=False):
    rng = np.random.default_rng(2)
    x, first = jnp.asarray(rng.standard_normal((B, T, D))), state(rng, name, layers)
    want, ends = run(name, params, x, first, reverse)
    got, y = network(x, ours(first), lengths=jnp.asarray(LENGTHS))
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("layers, reverse", [(1, False), (1, True), (3, False)])
def test_runs_as_in_haiku(name, layers, reverse):
    params = params_of(name, layers)
    network = from_haiku(params, reverse=reverse)
    check_runs(name, params, network, layers, reverse)


@pytest.mark.parametrize("name", CORES)
def test_both_directions(name):
    forward, backward = params_of(name, 1), params_of(name, 1, seed=1)
    (core, *_) = {key.split("/")[0] for key in forward}
    renamed = {k.replace(core, "back", 1): a for k, a in backward.items()}
    params = {**forward, **renamed, "head": {"w": np.ones((H, 2))}}
    network = from_haiku(params, names=[(core, "back")], merge="sum")
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((B, T, D)))
    first = [state(rng, name, 1) for _ in range(2)]
    want_f, end_f = run(name, forward, x, first[0])
    want_b, end_b = run(name, backward, x, first[1], reverse=True)
    begin = tuple(ours(s)[0] for s in first)
    got, y = network(x, (begin,), lengths=jnp.asarray(LENGTHS))
    np.testing.assert_allclose(y, want_f + want_b, rtol=0, atol=1e-12)
    ends = jax.tree.leaves((end_f, end_b))
    for a, b in zip(jax.tree.leaves(got), ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    back = to_haiku(network, names=[(core, "back")])
    check_equal(back, {**forward, **renamed})


def check_equal(got, want):
    assert sorted(got) == sorted(want)
    for module in want:
        assert sorted(got[module]) == sorted(want[module])
        for k, a in want[module].items():
            assert got[module][k].tobytes() == np.asarray(a).tobytes()


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_there_and_back(name, dtype):
    params = params_of(name, 2)
    params = jax.tree.map(lambda a: np.asarray(a, jnp.dtype(dtype)), params)
    network = from_haiku(params)
    back = to_haiku(network)
    check_equal(back, params)
    again = from_haiku(back)
    assert jax.tree.structure(again) == jax.tree.structure(network)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again, network)))


def drawn(name):
    """Weights that begin in jaxseq, with biases that Haiku does not have."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape)
    if name == "lstm":
        w_x, w_h, b, b_h = draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), draw(4 * H)
        return jaxseq.LSTMParams(w_x, w_h, b, b_h), jaxseq.LSTM
    if name == "gru":
        w_h = jaxseq.ResetBefore(draw(H, 2 * H), draw(H, H))
        params = jaxseq.CellParams(draw(D, 3 * H), w_h, draw(3 * H), draw(H))
        return params, jaxseq.gru_cell(reset_after=False)
    cell = jaxseq.rnn_cell(activation=jax.nn.relu)
    return jaxseq.CellParams(draw(D, H), draw(H, H), None, draw(H)), cell


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_into_haiku(name):
    params, cell = drawn(name)
    network = Network((params,), cell)
    check_runs(name, to_haiku(network), network, 1)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_into_haiku_without_biases(name):
    params, cell = drawn(name)
    params = type(params)(params.w_x, params.w_h, None, None)
    network = Network((params,), cell)
    found = to_haiku(network)
    if name == "rnn":
        assert sorted(found["vanilla_rnn/linear_1"]) == ["w"]
        check_runs("one bias", found, network, 1)
    else:
        check_runs(name, found, network, 1)


LSTM = {"lstm/linear": {"w": np.ones((D + H, 4 * H)), "b": np.ones(4 * H)}}
ABOVE = {"lstm_1/linear": {"w": np.ones((2 * H, 4 * H)), "b": np.ones(4 * H)}}
GRU = {"gru": {"w_i": np.ones((D, 15)), "w_h": np.ones((H, 15)), "b": np.ones(15)}}
RNN = {
    "vanilla_rnn/linear": {"w": np.ones((D, H)), "b": np.ones(H)},
    "vanilla_rnn/linear_1": {"w": np.ones((H, H))},
}
WRONG = {
    "a missing key": (
        {"lstm/linear": {"w": LSTM["lstm/linear"]["w"]}},
        "weights: expected a key 'lstm/linear/b', got 'lstm/linear/w'",
    ),
    "a missing matrix": (
        {"gru": {k: a for k, a in GRU["gru"].items() if k != "w_i"}},
        "weights: expected a key 'gru/w_i'",
    ),
    "transposed": (
        {"lstm/linear": {"w": np.ones((20, 8)), "b": np.ones(20)}},
        "lstm/linear/b: expected shape",
    ),
    "too few rows": (
        {"lstm/linear": {"w": np.ones((5, 20)), "b": np.ones(20)}},
        r"lstm/linear/w: expected shape \(D \+ H, 4H\) of an LSTM",
    ),
    "a wrong gate count": (
        {"gru": GRU["gru"] | {"w_h": np.ones((H, 10))}},
        r"gru/w_h: expected shape \(5, 15\), got \(5, 10\)",
    ),
    "no four gates": (
        {"lstm/linear": {"w": np.ones((8, 10)), "b": np.ones(10)}},
        r"lstm/linear/w: expected shape \(D \+ H, 4H\) .*, got \(8, 10\)",
    ),
    "a wrong layer above": (
        LSTM | {"lstm_1/linear": LSTM["lstm/linear"]},
        r"lstm_1/linear/w: expected shape \(D \+ H, 4H\) of an LSTM, here with D = 5",
    ),
    "mixed layers": (LSTM | GRU, "weights: expected one module, or numbered ones"),
    "a gap": (
        LSTM | {"lstm_2/linear": ABOVE["lstm_1/linear"]},
        "weights: expected one module, or numbered ones",
    ),
    "one left over": (
        {"gru": GRU["gru"] | {"scale": np.ones(3)}},
        "weights: expected no other names, got 'gru/scale'",
    ),
    "dtypes": (
        {"gru": GRU["gru"] | {"b": np.ones(15, "f")}},
        "gru/b: expected dtype float64, got float32",
    ),
    "no second matrix": (
        {k: RNN[k] for k in ["vanilla_rnn/linear"]},
        r"vanilla_rnn/linear/w: expected shape \(D \+ H, 4H\)",
    ),
    "nothing": ({}, "weights: expected those of at least one core, got none"),
    "no mapping": ([LSTM], "weights: expected a mapping, got list"),
}


@pytest.mark.parametrize("params, message", WRONG.values(), ids=WRONG)
def test_wrong_params(params, message):
    with pytest.raises(ValueError, match=message):
        from_haiku(params)


def test_wrong_names():
    with pytest.raises(ValueError, match="expected modules among 'lstm', got 'gru'"):
        from_haiku(LSTM, names=["gru"])
    with pytest.raises(ValueError, match="names: expected names of modules"):
        from_haiku(LSTM, names=[])
    same = jax.tree.map(
        np.array_equal, from_haiku(LSTM, names=["lstm/"]), from_haiku(LSTM)
    )
    assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match="gru: expected an LSTM, as the first layer"):
        wide = {"gru": GRU["gru"] | {"w_i": np.ones((H, 15))}}
        from_haiku(LSTM | wide, names=["lstm", "gru"])
    with pytest.raises(ValueError, match="names: expected names of modules"):
        from_haiku(LSTM, names=[("a", "b", "c")])
    network = from_haiku(LSTM)
    with pytest.raises(ValueError, match="names: expected a name for each layer"):
        to_haiku(network, names=["a", "b"])


HAS_NOT = {
    "tanh": (jaxseq.RNN, "network.cell: expected a cell that Haiku has"),
    "after": (jaxseq.GRU, "network.cell: expected a reset gate before"),
    "clip": (jaxseq.lstm_cell(clip=1.0), "network.cell: expected a cell that Haiku"),
    "norms": (
        jaxseq.lstm_cell(layer_norm=True),
        r"layers\[0\]: expected no layer",
    ),
}


@pytest.mark.parametrize("cell, message", HAS_NOT.values(), ids=HAS_NOT)
def test_what_haiku_has_not(cell, message):
    params = cell.init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=message):
        to_haiku(Network((params,), cell))
