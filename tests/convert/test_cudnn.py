"""The vector of `jax.experimental.rnn`, run by its reference and by PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jaxseq
from jaxseq.convert import Network, from_cudnn, from_torch, to_cudnn, to_torch

B, T, D, H = 4, 7, 3, 5
LENGTHS = np.array([7, 3, 1, 5], np.int32)
CASES = [(1, False), (1, True), (2, True), (3, False)]
cases = pytest.mark.parametrize("layers, both", CASES)


def sizes(layers=1, both=False, D=D, H=H):
    sizes = {"input_size": D, "hidden_size": H}
    return sizes | {"num_layers": layers, "bidirectional": both}


def drawn(layers, both, rng):
    n = rnn.get_num_params_in_lstm(D, H, layers, both)
    return rng.standard_normal(n) / 2


@cases
def test_runs_as_the_reference(layers, both):
    rng = np.random.default_rng(0)
    weights = drawn(layers, both, rng)
    x = rng.standard_normal((B, T, D))
    h, c = rng.standard_normal((2, layers * (1 + both), B, H))
    unpacked = rnn.unpack_lstm_weights(jnp.asarray(weights), D, H, layers, both)
    first = map(jnp.asarray, (x, h, c))
    want, *ends = rnn.lstm_ref(*first, *unpacked, LENGTHS, D, H, layers, 0.0, both)
    network = from_cudnn(weights, **sizes(layers, both))
    states = [jaxseq.LSTMState(*pair) for pair in zip(h, c, strict=True)]
    if both:
        states = list(zip(states[::2], states[1::2], strict=True))
    state, y = network(jnp.asarray(x), tuple(states), lengths=LENGTHS)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)
    found = jax.tree.leaves(state)
    for k, end in enumerate(ends):
        np.testing.assert_allclose(np.stack(found[k::2]), end, rtol=0, atol=1e-12)


@cases
def test_is_what_pytorch_has_by_name(layers, both):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    how = {"num_layers": layers, "bidirectional": both}
    lstm = torch.nn.LSTM(D, H, dtype=torch.float64, **how)
    state = {k: a.numpy() for k, a in lstm.state_dict().items()}
    vector = to_cudnn(from_torch(state))
    # matrices before biases, each in the order of PyTorch's own names
    names = sorted(state, key=lambda k: k.startswith("bias"))
    want = np.concatenate([state[k].ravel() for k in names])
    np.testing.assert_array_equal(vector, want)
    back = to_torch(from_cudnn(vector, **sizes(layers, both)))
    assert all(np.array_equal(back[k], state[k]) for k in state)


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_there_and_back(layers, both, dtype):
    weights = drawn(layers, both, np.random.default_rng(0)).astype(jnp.dtype(dtype))
    network = from_cudnn(weights, **sizes(layers, both))
    again = to_cudnn(network)
    assert again.dtype == dtype and again.tobytes() == weights.tobytes()


def test_nothing_is_shared():
    weights = drawn(1, False, np.random.default_rng(0))
    network = from_cudnn(weights, **sizes())
    before = weights.copy()
    weights += 1
    np.testing.assert_array_equal(to_cudnn(network), before)


def test_a_bias_that_is_not_there():
    params = jaxseq.lstm_init(jax.random.key(0), D, H)._replace(b=None)
    vector = to_cudnn(Network((params,), jaxseq.LSTM))
    (again,) = from_cudnn(vector, **sizes()).layers
    np.testing.assert_array_equal(again.w_h, params.w_h)
    assert not again.b.any() and not again.b_h.any()


@pytest.mark.parametrize(
    "weights, how, message",
    [
        (np.ones(9), sizes(), r"weights: expected shape \(200,\), got \(9,\)"),
        (np.ones(200), sizes(both=True), r"weights: expected shape \(400,\)"),
        (np.ones((200, 1)), sizes(), r"shape \(200,\), got \(200, 1\)"),
        (np.ones(200, int), sizes(), "weights: expected a float dtype, got"),
        (np.ones(200), sizes(H=0), "hidden_size: expected a size"),
        (np.ones(200), sizes(0), "num_layers: expected a size"),
        (np.ones(200), sizes(both=2), "bidirectional: expected True or False"),
    ],
)
def test_wrong_vectors(weights, how, message):
    with pytest.raises(ValueError, match=message):
        from_cudnn(weights, **how)


def test_what_the_vector_does_not_hold():
    key = jax.random.key(0)
    params = jaxseq.lstm_init(key, D, H)
    gru = Network((jaxseq.gru_init(key, D, H),), jaxseq.GRU)
    peepholes = jaxseq.lstm_cell(peepholes=True)
    peepholes = Network((peepholes.init(key, D, H),), peepholes)
    wider = jaxseq.lstm_init(key, H, 6)
    for network, message in [
        (
            gru,
            r"network\.cell: expected .* has: jaxseq\.LSTM, got jaxseq\.GRU",
        ),
        (peepholes, r"network\.layers\[0\]: expected no peepholes, for cuDNN has"),
        (Network((params,), jaxseq.LSTM, reverse=True), r"network\.reverse"),
        (Network(((params, params),), jaxseq.LSTM, merge="sum"), r"network\.merge"),
        (Network((params, params), jaxseq.LSTM), "expected inputs 5 wide, got"),
        (
            Network((params, wider), jaxseq.LSTM),
            "expected layers of one width, for cuDNN",
        ),
        ([params], "network: expected a Network, got list"),
    ]:
        with pytest.raises(ValueError, match=message):
            to_cudnn(network)
