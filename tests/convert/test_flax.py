"""Weights of Flax NNX and Linen, run by Flax and by jaxseq, and there and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from flax.traverse_util import flatten_dict

import jaxseq
from jaxseq.convert import Network, from_linen, from_nnx, to_linen, to_nnx

B, T, D, H = 4, 6, 3, 5
LENGTHS = jnp.array([6, 3, 1, 4])
NNX = ["SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell"]
LINEN = [*NNX, "MGUCell"]
DTYPES = {"dtype": jnp.float64, "param_dtype": jnp.float64}
OPTIONS = {
    ("nnx", "LSTMCell"): {"optimized": False},
    ("linen", "MGUCell"): {"mgu": True},
}
KINDS = [("nnx", name) for name in NNX] + [("linen", name) for name in LINEN]
FROM = {"nnx": from_nnx, "linen": from_linen}
TO = {"nnx": to_nnx, "linen": to_linen}


class NNXModule:
    """Layers of NNX, with random weights."""

    def __init__(self, name, layers=1, both=False, seed=0, merge=None, **how):
        rngs, widths = nnx.Rngs(0), [D, *[H * (1 + both)] * (layers - 1)]
        cell = partial(getattr(nnx, name), **DTYPES, **how, rngs=rngs)
        one = lambda width: nnx.RNN(cell(width, H), keep_order=True)
        fn = {} if merge is None else {"merge_fn": merge}
        two = lambda width: nnx.Bidirectional(one(width), one(width), **fn)
        self.layers = [(two if both else one)(width) for width in widths]
        whole = self.layers[0] if layers == 1 else nnx.Sequential(*self.layers)
        self.module, rng = whole, np.random.default_rng(seed)
        drawn = jax.tree.map(
            lambda a: rng.standard_normal(a.shape),
            nnx.to_pure_dict(nnx.state(whole, nnx.Param)),
        )
        self.load(drawn)

    def load(self, weights):
        nnx.update(self.module, weights)

    def weights(self):
        return nnx.to_pure_dict(nnx.state(self.module))

    def own(self):
        return nnx.to_pure_dict(nnx.state(self.module, nnx.Param))

    def __call__(self, x, states, **how):
        ends = []
        for layer, state in zip(self.layers, states, strict=True):
            how |= {"initial_carry": state, "seq_lengths": LENGTHS}
            end, x = layer(x, return_carry=True, **how)
            ends.append(end)
        return tuple(ends), x


class LinenModule:
    """Layers of Linen, with random weights."""

    def __init__(self, name, layers=1, both=False, seed=0, merge=None, **how):
        cell = partial(getattr(linen, name), H, **DTYPES, **how)
        one = lambda: linen.RNN(cell(), keep_order=True)
        fn = {} if merge is None else {"merge_fn": merge}
        two = lambda: linen.Bidirectional(one(), one(), **fn)
        self.layers = [(two if both else one)() for _ in range(layers)]
        rng = np.random.default_rng(seed)
        widths = [D, *[H * (1 + both)] * (layers - 1)]
        inputs = [jnp.ones((B, T, width)) for width in widths]
        start = partial(jax.tree.map, lambda a: rng.standard_normal(a.shape))
        self.params = [
            start(layer.init(jax.random.key(0), x)["params"])
            for layer, x in zip(self.layers, inputs, strict=True)
        ]

    def load(self, weights):
        one = len(self.layers) == 1
        each = (
            [weights] if one else [weights[f"layers_{i}"] for i in range(len(weights))]
        )
        self.params = each

    def weights(self):
        if len(self.params) == 1:
            return self.params[0]
        return {f"layers_{i}": own for i, own in enumerate(self.params)}

    own = weights

    def __call__(self, x, states, **how):
        ends = []
        for layer, params, state in zip(self.layers, self.params, states, strict=True):
            how |= {"initial_carry": state, "seq_lengths": LENGTHS}
            end, x = layer.apply({"params": params}, x, return_carry=True, **how)
            ends.append(end)
        return tuple(ends), x


MODULES = {"nnx": NNXModule, "linen": LinenModule}


def first_states(name, layers, both):
    """First states of jaxseq and of Flax, whose LSTM has the cell state first."""
    rng = np.random.default_rng(1)
    drawn = jnp.asarray(rng.standard_normal((layers, 2, 2, B, H)))
    lstm = "LSTM" in name
    ours = [[jaxseq.LSTMState(*a) if lstm else a[0] for a in own] for own in drawn]
    theirs = [[(a[1], a[0]) if lstm else a[0] for a in own] for own in drawn]
    pick = lambda each: tuple(tuple(own) if both else own[0] for own in each)
    return pick(ours), pick(theirs)


def check_runs(module, name, network, layers=1, both=False, **how):
    ours, theirs = first_states(name, layers, both)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((B, T, D)))
    ends, want = module(x, theirs, **how)
    got, y = network(x, ours, lengths=LENGTHS)
    valid = jnp.arange(T) < LENGTHS[:, None]
    want = jnp.where(valid[..., None], want, 0)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)
    flip = lambda s: s[::-1] if isinstance(s, jaxseq.LSTMState) else s
    is_state = lambda s: isinstance(s, jaxseq.LSTMState)
    found = jax.tree.leaves(jax.tree.map(flip, got, is_leaf=is_state))
    for a, b in zip(found, jax.tree.leaves(ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind, name", KINDS)
@pytest.mark.parametrize("layers, both", [(1, False), (2, True), (3, False)])
def test_runs_as_in_flax(kind, name, layers, both):
    module = MODULES[kind](name, layers, both)
    network = FROM[kind](module.weights())
    check_runs(module, name, network, layers, both)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", ["GRUCell", "OptimizedLSTMCell"])
def test_backwards_and_sum(kind, name):
    module = MODULES[kind](name)
    network = FROM[kind](module.weights(), reverse=True)
    check_runs(module, name, network, reverse=True)
    module = MODULES[kind](name, both=True, merge=lambda a, b: a + b)
    check_runs(module, name, FROM[kind](module.weights(), merge="sum"), both=True)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", NNX)
def test_other_activations(kind, name):
    how = {"activation_fn": jax.nn.softplus}
    how |= {} if name == "SimpleCell" else {"gate_fn": jax.nn.hard_sigmoid}
    module = MODULES[kind](name, **how)
    network = FROM[kind](module.weights(), **how)
    check_runs(module, name, network)
    back = TO[kind](network, **OPTIONS.get((kind, name), {}))
    check_equal(back, module.own())


def check_equal(got, want):
    got, want = flatten_dict(got), flatten_dict(want)
    assert sorted(got) == sorted(want)
    for path, a in want.items():
        assert got[path].tobytes() == np.asarray(a).tobytes()


@pytest.mark.every(2)
@pytest.mark.parametrize("kind, name", KINDS)
@pytest.mark.parametrize("layers, both", [(1, False), (1, True), (2, True)])
def test_there_and_back(kind, name, layers, both):
    module = MODULES[kind](name, layers, both)
    network = FROM[kind](module.weights())
    back = TO[kind](network, **OPTIONS.get((kind, name), {}))
    check_equal(back, module.own())
    again = FROM[kind](back)
    assert jax.tree.structure(again) == jax.tree.structure(network)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again, network)))
    other = MODULES[kind](name, layers, both, seed=1)
    other.load(back)
    check_runs(other, name, network, layers, both)


@pytest.mark.parametrize("kind", MODULES)
def test_forms_of_weights(kind):
    """Cells alone, paths, a part of something larger, and lists of layers."""
    module = MODULES[kind]("GRUCell", 2, True)
    weights, read = module.own(), FROM[kind]
    network = read(weights)
    same = lambda other: all(
        jax.tree.leaves(jax.tree.map(np.array_equal, other, network))
    )
    assert same(read(flatten_dict(weights)))
    assert same(read(paths_of(weights)))
    larger = {"encoder": weights, "head": {"kernel": np.ones((3, 2))}}
    assert same(read(larger, prefix="encoder"))
    assert same(read({"a": larger}, prefix="a.encoder."))
    back = TO[kind](network, prefix="a/1")
    check_equal(back, {"a": {1 if kind == "nnx" else "1": weights}})
    with pytest.raises(ValueError, match="prefix: expected the beginning of a name"):
        read(larger, prefix="decoder")
    wrong = {"a": changed(weights, next(iter(paths_of(weights))))}
    with pytest.raises(ValueError, match="weights: expected a key 'a/"):
        read(wrong, prefix="a")
    each = weights["layers"] if kind == "nnx" else weights
    cells = [
        tuple(own[d]["cell"] for d in ("forward_rnn", "backward_rnn"))
        for own in each.values()
    ]
    assert same(read(cells))
    one = cells[0][0]
    check_equal(TO[kind](read(one), cell=True), one)
    with pytest.raises(ValueError, match="network: expected one layer of one"):
        TO[kind](network, cell=True)


def test_nnx_state_itself():
    module = NNXModule("OptimizedLSTMCell")
    check_runs(module, "LSTM", from_nnx(nnx.state(module.module)))


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("name", ["LSTM", "RNN"])
def test_two_biases(kind, name):
    rng = np.random.default_rng(0)
    Z = H if name == "RNN" else 4 * H
    arrays = [rng.standard_normal(s) for s in ((D, Z), (H, Z), (Z,), (Z,))]
    params = getattr(jaxseq, name + "Params")
    module = MODULES[kind]("SimpleCell" if name == "RNN" else "OptimizedLSTMCell")
    for biases in (arrays[2:], [arrays[2], None], [None, arrays[2]], [None, None]):
        network = Network((params(*arrays[:2], *biases),), getattr(jaxseq, name))
        module.load(TO[kind](network))
        check_runs(module, name, network)


@pytest.mark.parametrize("kind", MODULES)
def test_biases_of_a_gru(kind):
    rng, Z = np.random.default_rng(0), 3 * H
    arrays = [rng.standard_normal(s) for s in ((D, Z), (H, Z), (Z,), (Z,))]
    network = Network((jaxseq.GRUParams(*arrays),), jaxseq.GRU)
    module = MODULES[kind]("GRUCell")
    if kind == "nnx":
        with pytest.raises(ValueError, match="b_hn: expected 0, for a GRU of Flax NNX"):
            to_nnx(network)
        lost = to_nnx(network, lossy=True)
        arrays[3][2 * H :] = 0
        network = Network((jaxseq.GRUParams(*arrays),), jaxseq.GRU)
        check_equal(lost, to_nnx(network))
    module.load(TO[kind](network))
    check_runs(module, "GRU", network)


def nested(weights):
    return {"cell": weights}


def draw(**shapes):
    return {k: {n: np.ones(s) for n, s in own.items()} for k, own in shapes.items()}


def sides(Z=4 * H, D=D, bias="h"):
    i, h = {"kernel": (D, Z)}, {"kernel": (H, Z)}
    (i if bias == "i" else h)["bias"] = (Z,)
    return nested(draw(dense_i=i, dense_h=h))


def gates(letters="ifgo", D=D, biased="h"):
    found = {}
    for side, width in (("i", D), ("h", H)):
        for letter in letters or [""]:
            own = found[side + letter] = {"kernel": (width, H)}
            own |= {"bias": (H,)} if side == biased else {}
    if letters in ("rzn", "fn"):
        found["hn"]["bias"] = (H,)
    return nested(draw(**found))


def paths_of(weights):
    return {"/".join(map(str, k)): a for k, a in flatten_dict(weights).items()}


def changed(weights, path, a=None):
    """Weights with one other array, or without it."""
    paths = paths_of(weights)
    assert path in paths
    return {k: v for k, v in paths.items() if k != path} | (
        {} if a is None else {path: a}
    )


WRONG = {
    "nnx, a missing key": (
        changed(sides(), "cell/dense_h/bias"),
        "weights: expected a key 'cell/dense_h/bias', got 'cell/dense_h/ke",
    ),
    "nnx, a gate count": (
        sides(2 * H),
        r"cell/dense_h/kernel: expected shape \(H, H\) or .* \(H, 4H\), got \(5, 10\)",
    ),
    "nnx, transposed": (
        changed(sides(), "cell/dense_i/kernel", np.ones((4 * H, D))),
        r"cell/dense_i/kernel: expected shape \(\*, 20\), got \(20, 3\)",
    ),
    "nnx, transposed h": (
        changed(sides(), "cell/dense_h/kernel", np.ones((4 * H, H))),
        r"cell/dense_h/kernel: expected shape \(H, H\) or .*, got \(20, 5\)",
    ),
    "nnx, a layer above": (
        [sides(), sides()],
        r"1/cell/dense_i/kernel: expected shape \(5, 20\), got \(3, 20\)",
    ),
    "nnx, mixed layers": (
        [sides(), sides(3 * H, D=H, bias="i")],
        "1/cell/: expected an LSTM, as the first layer, got a GRU",
    ),
    "nnx, one left over": (
        flatten_dict(sides(), sep="/") | {"cell/dense_h/scale": np.ones(3)},
        "weights: expected no other names, got 'cell/dense_h/scale'",
    ),
    "nnx, another module": (
        {**sides(), "head": {"kernel": np.ones(3)}},
        r"weights: expected one cell, got more",
    ),
    "nnx, unknown places": (
        {"encoder": sides(), "decoder": sides()},
        "weights: expected a cell, .* got weights at 'decoder/cell/'",
    ),
    "nnx, a gap": (
        {"layers": {0: sides(), 2: sides(D=H)}},
        r"weights: expected layers \[0, 1\], got \[0, 2\]",
    ),
    "nnx, one direction": (
        {"forward_rnn": sides()},
        "weights: expected one direction of a layer, or both, got",
    ),
    "nnx, dtypes": (
        changed(sides(), "cell/dense_h/bias", np.ones(4 * H, "f")),
        "cell/dense_h/bias: expected dtype float64, got float32",
    ),
    "nnx, each gate": (
        changed(gates() | {}, "cell/hg/bias"),
        "weights: expected a key 'cell/if_/kernel'",
    ),
    "nnx, no mapping": (np.ones(3), "weights: expected a mapping .*, got ndarray"),
    "linen, a missing key": (
        changed(gates(), "cell/hg/bias"),
        "weights: expected a key 'cell/hg/bias'",
    ),
    "linen, a missing gate": (
        changed(gates("rzn", biased="i"), "cell/ir/kernel"),
        "weights: expected a key 'cell/ir/kernel'",
    ),
    "linen, transposed": (
        changed(gates(), "cell/ig/kernel", np.ones((H, D))),
        r"cell/ig/kernel: expected shape \(3, 5\), got \(5, 3\)",
    ),
    "linen, no square": (
        changed(gates(), "cell/hf/kernel", np.ones((H, D))),
        r"cell/hf/kernel: expected shape \(5, 5\), got \(5, 3\)",
    ),
    "linen, mixed layers": (
        [gates(), gates("", D=H, biased="i")],
        "1/cell/: expected an LSTM, as the first layer, got an RNN",
    ),
    "linen, no reset gate": (
        changed(gates("fn", biased="i"), "cell/hn/bias"),
        "cell/hn/bias: expected a bias; an MGUCell without a reset gate is no GRU",
    ),
    "linen, variables": (
        {"params": gates(), "other": gates()},
        "weights: expected a cell, .* got weights at 'other/cell/', 'params/cell/'",
    ),
    "linen, modules": (
        [linen.GRUCell(H)],
        r"weights/0: expected arrays by name, such as variables\[\"params\"\], got GRU",
    ),
    "linen, a module": (linen.GRUCell(H), "such as variables.*, got GRUCell"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_weights(case):
    weights, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        FROM[case.partition(",")[0]](weights)


@pytest.mark.parametrize("kind", MODULES)
def test_what_flax_has_not(kind):
    named = {
        "network.cell: expected a reset gate after": jaxseq.gru_cell(reset_after=False),
        "network.cell: expected a cell that Flax": jaxseq.lstm_cell(coupled=True),
        "one activation of candidate and output, .*, got candidate=relu and output="
        "tanh": jaxseq.lstm_cell(candidate=jax.nn.relu),
        "layers.0.: expected no peepholes": jaxseq.lstm_cell(peepholes=True),
    }
    for message, cell in named.items():
        params = cell.init(jax.random.key(0), D, H)
        with pytest.raises(ValueError, match=message):
            TO[kind](Network((params,), cell))
    params = jaxseq.gru_init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match="network: expected a GRU with one gate twice"):
        to_linen(Network((params,), jaxseq.GRU), mgu=True)
    params = jaxseq.lstm_init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match="mgu: expected False for what is no GRU"):
        to_linen(Network((params,), jaxseq.LSTM), mgu=True)


class Encoder(linen.Module):
    """Whose cells lie beside what runs them."""

    both: bool = False

    @linen.compact
    def __call__(self, x):
        one = lambda name: linen.RNN(linen.GRUCell(H, **DTYPES), name=name)
        return (linen.Bidirectional(one("a"), one("b")) if self.both else one("rnn"))(x)


@pytest.mark.parametrize("both", [False, True])
def test_compact_modules(both):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)))
    module = Encoder(both)
    params = module.init(jax.random.key(0), x)["params"]
    whole = {"encoder": params, "head": {"kernel": np.ones((2, 2))}}
    if both:
        each = [from_linen([(params["GRUCell_0"], params["GRUCell_1"])])]
        with pytest.raises(ValueError, match="weights at 'GRUCell_0/', 'GRUCell_1/'"):
            from_linen(whole, prefix="encoder")
    else:
        prefixes = "encoder", "encoder/GRUCell_0"
        each = [from_linen(whole, prefix=prefix) for prefix in prefixes]
        back = to_linen(each[0], prefix=prefixes[1], cell=True)
        check_equal(back, {"encoder": params})
        with pytest.raises(ValueError, match="weights are at 'encoder/GRUCell_0', got"):
            from_linen(whole, prefix="encoder/rnn")
    for network in each:
        want = module.apply({"params": params}, x)
        np.testing.assert_allclose(network(x)[1], want, rtol=0, atol=1e-12)
