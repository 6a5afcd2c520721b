"""DyNet's text, written here by its rules, and its LSTM by PyTorch's with a bias of 1.

A network that DyNet itself wrote is in tests/networks.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import Network, from_dynet, to_dynet

torch = pytest.importorskip("torch")

B, T, D, H = 4, 7, 3, 5
CASES = [(1, False), (1, True), (2, True), (3, False)]
cases = pytest.mark.parametrize("layers, both", CASES)
OTHERS = "#Parameter# /_0 {2} 33 ZERO_GRAD\n+1.00000000e+00 +2.00000000e+00 \n"
OTHERS += OTHERS.replace("Parameter", "LookupParameter")


def entry(name, a, gradient=False):
    values = "".join(f"{v:+.8e} " for v in a.ravel("F")) + "\n"
    dims = ",".join(map(str, a.shape))
    if gradient:
        return (
            f"#Parameter# {name} {{{dims}}} {2 * len(values)} FULL_GRAD\n" + 2 * values
        )
    return f"#Parameter# {name} {{{dims}}} {len(values)} ZERO_GRAD\n{values}"


def drawn(layers, both, forget_bias=1.0, gradient=False):
    """An LSTM of PyTorch, and what DyNet writes of the same."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(D, H, layers, bidirectional=both, batch_first=True)
    state = {k: a.detach().numpy() for k, a in lstm.state_dict().items()}
    rows = np.r_[: 2 * H, 3 * H : 4 * H, 2 * H : 3 * H]  # i, f, o, g
    suffixes = [
        f"_l{k}{way}" for k in range(layers) for way in ["", "_reverse"][: 1 + both]
    ]
    text = ""
    for n, suffix in enumerate(suffixes):
        builder = "vanilla-lstm-builder" + (f"_{n}" if both and n else "")
        folder = f"/birnn/{builder}" if both else f"/{builder}"
        names = "weight_ih", "weight_hh", "bias_ih"
        for k, name in enumerate(names, 0 if both else 3 * n):
            text += entry(f"{folder}/_{k}", state[name + suffix][rows], gradient)
        state["bias_hh" + suffix][:] = np.repeat([0, forget_bias, 0, 0], H)
    lstm.load_state_dict({k: torch.from_numpy(a) for k, a in state.items()})
    return lstm, text


@cases
@pytest.mark.parametrize("forget_bias", [1.0, 0.0])
def test_runs_as_in_pytorch(layers, both, forget_bias):
    lstm, text = drawn(layers, both, forget_bias, gradient=True)
    prefix = "/birnn" if both else "/vanilla-lstm-builder"
    how = {"prefix": prefix, "forget_bias": forget_bias}
    network = from_dynet(OTHERS + text + OTHERS, **how)
    x = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
    want = lstm(torch.from_numpy(x))[0].detach()
    _, y = network(x)
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-6)


@cases
def test_there_and_back(layers, both):
    _, text = drawn(layers, both)
    network = from_dynet(OTHERS + text)
    other = from_dynet(text.replace("vanilla", "compact-vanilla"))
    assert jax.tree.all(jax.tree.map(np.array_equal, network, other))
    assert len(network.layers) == layers
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(network))
    for prefix in ("/birnn", "birnn/") if both else ("", "/"):
        assert to_dynet(network, prefix=prefix) == text
        again = from_dynet(text, prefix=prefix)
        assert jax.tree.all(jax.tree.map(np.array_equal, network, again))


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 0.5])
def test_biases_are_added(forget_bias):
    key = jax.random.key(0)
    b_h = jnp.linspace(-1, 1, 4 * H, dtype=jnp.float32)
    params = jaxseq.lstm_init(key, D, H)._replace(b_h=b_h)
    network = Network((params,), jaxseq.LSTM)
    text = to_dynet(network, forget_bias=forget_bias)
    again = from_dynet(text, forget_bias=forget_bias)
    x = jax.random.normal(key, (B, T, D), jnp.float32)
    np.testing.assert_allclose(again(x)[1], network(x)[1], rtol=0, atol=2e-6)


def test_float64_is_rounded_only_if_told():
    params = jaxseq.lstm_init(jax.random.key(0), D, H, dtype=jnp.float64)
    network = Network((params,), jaxseq.LSTM)
    with pytest.raises(ValueError, match=r"network: expected float32, .*lossy=True"):
        to_dynet(network)
    (again,) = from_dynet(to_dynet(network, lossy=True)).layers
    np.testing.assert_array_equal(again.w_x, params.w_x.astype(jnp.float32))


GOOD = drawn(1, False)[1]
BOTH = drawn(2, True)[1]
AT = "/vanilla-lstm-builder/_"
AT_BOTH = "/birnn/vanilla-lstm-builder_1/_0"
(FIRST,) = re.findall(rf"#Parameter# {AT_BOTH} .*\n.*\n", BOTH)
WRONG = {
    "nothing there": (
        "",
        "",
        "prefix: expected the beginning of a builder in the text: none, got '/'",
    ),
    "another place": (
        GOOD,
        "/birnn",
        "a builder in the text: '/vanilla-lstm-builder/', got '/birnn/'",
    ),
    "another builder": (
        GOOD.replace("vanilla-lstm", "gru"),
        "/",
        "expected parameters of a vanilla-lstm-builder under /, got /gru-builder/",
    ),
    "a mask": (
        GOOD + entry(AT + "3", np.ones((4 * H, D))),
        "/",
        "text: expected two matrices and a bias of each layer",
    ),
    "another shape": (
        GOOD.replace("{20,5}", "{20,6}"),
        "/",
        r"/vanilla-lstm-builder/_1: expected shape \(20, 5\), got \(20, 6\)",
    ),
    "another input": (
        BOTH[: BOTH.index("#Parameter# /birnn/vanilla-lstm-builder_2")]
        + drawn(1, True)[1].replace("builder_1", "builder_3").replace("r/", "r_2/"),
        "/",
        r"expected layers with an input 10 wide, got \[3, 3\]",
    ),
    "cut off": (GOOD[:-40] + "\n", "/", "_2: expected 20 numbers, got 1[78]"),
    "one of another": (
        BOTH.replace("/vanilla-lstm-builder_3", "/gru-builder"),
        "/birnn",
        "parameters of a vanilla-lstm-builder under /birnn/, got /birnn/gru-builder/",
    ),
    "a short bias": (
        GOOD.replace("_2 {20}", "_2 {3}"),
        "/",
        r"/vanilla-lstm-builder/_2: expected shape \(20,\), got \(3,\)",
    ),
    "two of one collection": (
        BOTH.replace("/birnn/", "/"),
        "",
        "prefix: expected the path of one builder, or of the collection of a BiRNN",
    ),
    "two collections": (
        GOOD.replace("# /", "# /a/") + GOOD.replace("# /", "# /b/"),
        "/",
        "got '/', where there are '/a/vanilla-lstm-builder/', '/b/vanilla-lstm-bui",
    ),
    "two inputs": (
        BOTH.replace(FIRST, entry(AT_BOTH, np.ones((4 * H, 5)))),
        "/birnn",
        r"text: expected layers with an input 3 wide, got \[3, 5\]",
    ),
    "odd": (
        BOTH[: BOTH.index("#Parameter# /birnn/vanilla-lstm-builder_3")],
        "/",
        "prefix: expected one builder, or pairs of builders with one layer",
    ),
}


@pytest.mark.parametrize("text, prefix, message", WRONG.values(), ids=WRONG)
def test_wrong_texts(text, prefix, message):
    with pytest.raises(ValueError, match=message):
        from_dynet(text, prefix=prefix)


def test_wrong_values():
    text = GOOD.replace("+", "plus", 1)
    with pytest.raises(ValueError, match="_0: expected numbers, got could not"):
        from_dynet(text)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="text: expected a str, got bytes"):
        from_dynet(GOOD.encode())  # pyright: ignore
    with pytest.raises(ValueError, match="forget_bias: expected a finite number"):
        from_dynet(GOOD, forget_bias=float("nan"))
    gru = Network((jaxseq.gru_init(jax.random.key(0), D, H),), jaxseq.GRU)
    with pytest.raises(ValueError, match=r"network\.cell: expected a cell that DyNet"):
        to_dynet(gru)


def test_a_prefix_says_which():
    text = BOTH.replace("/birnn/", "/")
    network = from_dynet(text, prefix="/")
    assert len(network.layers) == 2 and to_dynet(network) == text
