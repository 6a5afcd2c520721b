"""Weights of PyTorch, run by PyTorch and by jaxseq, and there and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq import CellParams
from jaxseq.convert import Network, from_torch, to_torch

torch = pytest.importorskip("torch")

B, T, D, H = 4, 7, 3, 5
LENGTHS = [7, 3, 1, 5]
MODULES = {
    "rnn": lambda **how: torch.nn.RNN(D, H, **how),
    "relu": lambda **how: torch.nn.RNN(D, H, nonlinearity="relu", **how),
    "gru": lambda **how: torch.nn.GRU(D, H, **how),
    "lstm": lambda **how: torch.nn.LSTM(D, H, **how),
    "projected": lambda **how: torch.nn.LSTM(D, H, proj_size=2, **how),
}


def drawn(make, **how):
    torch.manual_seed(0)
    return make(dtype=torch.float64, batch_first=True, **how)


def states(rng, name, layers, both):
    """First states of jaxseq and of PyTorch."""
    P = 2 if name == "projected" else H
    shape = layers * (1 + both), B
    h, c = rng.standard_normal((*shape, P)), rng.standard_normal((*shape, H))
    lstm = name in ("lstm", "projected")
    each = [jaxseq.LSTMState(*a) for a in zip(h, c, strict=True)] if lstm else list(h)
    ours = [tuple(each[i : i + 2]) for i in range(0, len(each), 2)] if both else each
    theirs = tuple(map(torch.from_numpy, (h, c)))
    return tuple(ours), theirs if lstm else theirs[0]


@pytest.mark.every(7)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("layers, both", [(1, False), (2, True), (3, False)])
@pytest.mark.parametrize("bias", [True, False])
def test_runs_as_in_pytorch(name, layers, both, bias):
    module = drawn(MODULES[name], num_layers=layers, bidirectional=both, bias=bias)
    kind = "relu" if name == "relu" else "tanh"
    network = from_torch(module.state_dict(), nonlinearity=kind)
    rng = np.random.default_rng(0)
    x, (ours, theirs) = rng.standard_normal((B, T, D)), states(rng, name, layers, both)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    packed = pack(torch.from_numpy(x), LENGTHS, batch_first=True, enforce_sorted=False)
    want, end = module(packed, theirs)
    want, _ = torch.nn.utils.rnn.pad_packed_sequence(want, batch_first=True)
    state, y = network(jnp.asarray(x), ours, lengths=jnp.asarray(LENGTHS))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    ends = end if isinstance(end, tuple) else (end,)
    found = jax.tree.leaves(state)
    for k, part in enumerate(ends):
        got = np.stack(found[k :: len(ends)])
        np.testing.assert_allclose(got, part.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("both", [False, True])
def test_there_and_back(name, both):
    module = drawn(MODULES[name], num_layers=2, bidirectional=both)
    want = {k: a.numpy() for k, a in module.state_dict().items()}
    kind = "relu" if name == "relu" else "tanh"
    network = from_torch(want, nonlinearity=kind)
    got = to_torch(network)
    assert sorted(got) == sorted(want)
    assert all(got[k].tobytes() == want[k].tobytes() for k in want)
    again = from_torch(got, nonlinearity=kind)
    assert jax.tree.structure(again) == jax.tree.structure(network)
    same = jax.tree.map(np.array_equal, again, network)
    assert all(jax.tree.leaves(same))
    module.load_state_dict({k: torch.from_numpy(a) for k, a in got.items()})


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_cells(name):
    torch.manual_seed(0)
    cell = getattr(torch.nn, name + "Cell")(D, H, dtype=torch.float64)
    state = {"a." + k: a for k, a in cell.state_dict().items()}
    network = from_torch(state | {"other": torch.ones(1)}, prefix="a")
    x = np.random.default_rng(0).standard_normal((B, D))
    want = cell(torch.from_numpy(x))
    want = want[0] if name == "LSTM" else want
    _, y = network(jnp.asarray(x)[:, None])
    np.testing.assert_allclose(y[:, 0], want.detach(), rtol=0, atol=1e-12)
    back = to_torch(network, cell=True, prefix="a.")
    assert all(np.array_equal(back[k], state[k]) for k in state)


@pytest.mark.parametrize("prefix", ["encoder.rnn", "encoder.rnn."])
def test_a_part_of_a_larger_module(prefix):
    module = torch.nn.ModuleDict({"rnn": drawn(MODULES["gru"])})
    whole = torch.nn.ModuleDict({"encoder": module, "head": torch.nn.Linear(H, 2)})
    state = whole.state_dict()
    network = from_torch(state, prefix=prefix)
    back = to_torch(network, prefix=prefix)
    own = {k: a for k, a in state.items() if k.startswith("encoder.")}
    assert sorted(back) == sorted(own)
    assert all(np.array_equal(back[k], own[k]) for k in own)
    key = "encoder.rnn.bias_hh_l0"
    for a, message in (
        (None, f"weights: expected a key '{key}', got 'encoder.rnn.bias_ih_l0'"),
        (np.ones(9), rf"{key}: expected shape \(15,\), got \(9,\)"),
    ):
        wrong = without(state, key) | ({} if a is None else {key: a})
        with pytest.raises(ValueError, match=message):
            from_torch(wrong, prefix=prefix)
    message = r"prefix: expected the beginning .* at 'encoder\.rnn', got 'decoder\.'"
    with pytest.raises(ValueError, match=message):
        from_torch(state, prefix="decoder")
    with pytest.raises(ValueError, match="prefix: expected a str, got NoneType"):
        from_torch(state, prefix=None)  # pyright: ignore


def test_errors_are_short():
    many = {f"layer_{i}.weight": np.ones((100, 100)) for i in range(1000)}
    with pytest.raises(ValueError, match=r"'layer_104\.weight', and 992 more$") as e:
        from_torch(many)
    assert len(str(e.value)) < 300
    big = good() | {"bias_ih_l0": np.ones((1000, 1000))}
    with pytest.raises(ValueError, match=r"got \(1000, 1000\)$"):
        from_torch(big)
    gate = partial(jax.nn.leaky_relu, negative_slope=jnp.ones(10_000))
    network = Network((lstm(),), jaxseq.lstm_cell(gate=gate, candidate=jnp.sin))
    with pytest.raises(ValueError, match=r"lstm_cell\(gate=partial, candidate=sin\)$"):
        to_torch(network)


def good(name="lstm", **how):
    module = drawn(MODULES[name], **how)
    return {k: a.numpy() for k, a in module.state_dict().items()}


def without(state, key):
    return {k: a for k, a in state.items() if k != key}


WRONG = {
    "a missing key": (
        without(good(), "weight_hh_l0"),
        "weights: expected a key 'weight_hh_l0', got 'bias_hh_l0', 'bias_ih_l0', '",
    ),
    "one bias": (without(good(), "bias_hh_l0"), "expected a key 'bias_hh_l0'"),
    "no bias of one layer": (
        {k: a for k, a in good(num_layers=2).items() if k[:4] + k[-2:] != "biasl1"},
        "weights: expected a key 'bias_ih_l1'",
    ),
    "no projection of one layer": (
        without(good("projected", num_layers=2), "weight_hr_l1"),
        "weights: expected a key 'weight_hr_l1'",
    ),
    "a wrong gate count": (
        good() | {"weight_hh_l0": np.ones((10, 5))},
        r"weight_hh_l0: expected shape \(H, H\) or .* \(4H, H\), got \(10, 5\)",
    ),
    "one left over": (
        good() | {"scale": np.ones(3)},
        "weights: expected no other names, got 'scale'",
    ),
    "transposed": (
        good() | {"weight_ih_l0": good()["weight_ih_l0"].T},
        r"weight_ih_l0: expected shape \(20, \*\), got \(3, 20\)",
    ),
    "transposed h": (
        good() | {"weight_hh_l0": good()["weight_hh_l0"].T},
        r"weight_hh_l0: expected shape \(H, H\) or \(3H, H\) or .*, got \(5, 20\)",
    ),
    "a projection of a GRU": (
        good("gru") | {"weight_hr_l0": np.ones((5, 9))},
        r"weight_ih_l0: expected shape \(36, \*\), got \(15, 3\)",
    ),
    "a wrong bias": (
        good() | {"bias_ih_l0": np.ones(19)},
        r"bias_ih_l0: expected shape \(20,\), got \(19,\)",
    ),
    "a wrong layer above": (
        good(num_layers=2) | {"weight_ih_l1": np.ones((20, 4))},
        r"weight_ih_l1: expected shape \(20, 5\), got \(20, 4\)",
    ),
    "mixed layers": (
        good() | {k.replace("l0", "l1"): a for k, a in good("gru").items()},
        "weight_ih_l1: expected",
    ),
    "dtypes": (
        good() | {"bias_hh_l0": np.ones(20, "f")},
        "bias_hh_l0: expected dtype float64, got float32",
    ),
    "integers": (good() | {"bias_hh_l0": np.ones(20, int)}, "a float dtype, got int64"),
    "no mapping": ([], "weights: expected a mapping from names to arrays, got list"),
}


@pytest.mark.parametrize("state, message", WRONG.values(), ids=WRONG)
def test_wrong_states(state, message):
    with pytest.raises(ValueError, match=message):
        from_torch(state)


HAS_NOT = {
    "reset gate": (
        jaxseq.gru_cell(reset_after=False),
        r"cell: expected a reset gate after",
    ),
    "peepholes": (
        jaxseq.lstm_cell(peepholes=True),
        r"layers\[0\]: expected no peepholes",
    ),
    "norms": (
        jaxseq.lstm_cell(layer_norm=True),
        r"layers\[0\]: expected no layer",
    ),
    "clip": (
        jaxseq.lstm_cell(clip=1.0),
        r"network\.cell: expected a cell that .*, got lstm_cell\(clip=1\.0\)",
    ),
    "relu": (
        jaxseq.gru_cell(gate=jax.nn.relu),
        r"network\.cell: expected a cell that .*, got gru_cell\(gate=relu\)",
    ),
}


@pytest.mark.parametrize("cell, message", HAS_NOT.values(), ids=HAS_NOT)
def test_what_pytorch_has_not(cell, message):
    params = cell.init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=message):
        to_torch(Network((params,), cell))


def test_pytorch_has_no_layer_that_only_goes_back():
    params = jaxseq.lstm_init(jax.random.key(0), D, H)
    with pytest.raises(ValueError, match=r"network\.reverse"):
        to_torch(Network((params,), jaxseq.LSTM, reverse=True))


def lstm(D=D, H=H, dtype=jnp.float64):
    return jaxseq.lstm_init(jax.random.key(0), D, H, dtype=dtype)


def projected(*widths):
    key, cell = jax.random.key(0), jaxseq.lstm_cell(cells=7)
    pairs = zip((D, *widths), widths, strict=False)
    return Network(tuple(cell.init(key, *pair) for pair in pairs), cell)


def relu(D=D):
    cell = jaxseq.rnn_cell(activation=jax.nn.relu)
    return cell, cell.init(jax.random.key(0), D, H, dtype=jnp.float64)


RNN_PARAMS = jaxseq.rnn_init(jax.random.key(0), D, H, dtype=jnp.float64)
WRONG_NETWORKS = {
    "two kinds": (
        lambda: Network(((RNN_PARAMS, relu()[1]),), (jaxseq.RNN, relu()[0])),
        r"network\.cell: expected two cells of one kind",
    ),
    "other weights": (
        lambda: Network((lstm(),), jaxseq.GRU),
        r"layers\[0\]: expected weights of the cell GRUUpdate, got LSTMParams",
    ),
    "no layers": (lambda: Network(lstm(), jaxseq.LSTM), "expected weights such as"),
    "weights of any cell": (
        lambda: Network((CellParams(*lstm()),), jaxseq.LSTM),
        r"layers\[0\]: expected LSTMParams, as jaxseq\.LSTM takes, got CellParams",
    ),
    "projected widths": (
        lambda: projected(2, 3),
        r"layers of one projected width, for PyTorch has one, got widths \[2, 3\]",
    ),
    "widths": (
        lambda: Network((lstm(), lstm(D=4)), jaxseq.LSTM),
        r"layers\[1\]\.w_x: expected inputs 5 wide, got \(4, 20\)",
    ),
    "hidden widths": (
        lambda: Network((lstm(), lstm(D=5, H=6)), jaxseq.LSTM),
        r"expected layers of one width, for PyTorch has one, got widths \[5, 6\]",
    ),
    "dtypes": (
        lambda: Network((lstm(), lstm(D=5, dtype=jnp.float32)), jaxseq.LSTM),
        r"one dtype of all weights, got \['float32', 'float64'\]",
    ),
    "reversed pairs": (
        lambda: Network(((lstm(), lstm()),), jaxseq.LSTM, reverse=True),
        r"network\.reverse: expected False for layers of two directions",
    ),
    "no cell": (lambda: Network((lstm(),), "lstm"), "cell: expected a Cell, or a pair"),
    "no merge": (
        lambda: Network((lstm(),), jaxseq.LSTM, merge="foo"),
        "merge: expected one of",
    ),
}


@pytest.mark.parametrize("make, message", WRONG_NETWORKS.values(), ids=WRONG_NETWORKS)
def test_wrong_networks(make, message):
    with pytest.raises(ValueError, match=message):
        to_torch(make())


def test_a_reversed_pair_is_not_run():
    network = Network(((lstm(), lstm()),), jaxseq.LSTM, reverse=True)
    with pytest.raises(ValueError, match="reverse: expected False"):
        network(jnp.ones((B, T, D)))


def test_nothing_is_shared_with_pytorch():
    module = drawn(MODULES["lstm"])
    network = from_torch(module.state_dict())
    before = jax.tree.map(np.copy, network)
    with torch.no_grad():
        for a in module.parameters():
            a.add_(1)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, network, before)))
    for name, a in to_torch(network).items():
        a += 1
        assert a.flags.writeable, name
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, network, before)))


def test_a_layer_without_a_bias_gets_zeros():
    layers = lstm(), lstm(D=H)._replace(b=None)
    state = to_torch(Network(layers, jaxseq.LSTM))
    module = torch.nn.LSTM(D, H, num_layers=2, dtype=torch.float64)
    module.load_state_dict({k: torch.from_numpy(a) for k, a in state.items()})
    assert not state["bias_ih_l1"].any()


def test_tensors_that_numpy_cannot_read():
    state = torch.nn.LSTM(D, H, dtype=torch.bfloat16).state_dict()
    with pytest.raises(ValueError, match="weight_hh_l0: expected an array that NumPy"):
        from_torch(state)
    network = from_torch({name: a.float() for name, a in state.items()})
    network = jax.tree.map(lambda a: a.astype(jnp.bfloat16), network)
    back = to_torch(network)
    tensors = {
        k: torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
        for k, a in back.items()
    }
    assert all(torch.equal(tensors[k], state[k]) for k in state)
    grads = dict(torch.nn.LSTM(D, H).named_parameters())
    with pytest.raises(ValueError, match="Parameter: Can't call numpy"):
        from_torch(grads)
