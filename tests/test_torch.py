"""Values and gradients against PyTorch in float64, weights carried over by hand."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxseq
from tests.cells import CELLS, assert_close, random_problem, run_and_gradients

torch = pytest.importorskip("torch")


def torch_module(cell, name, params):
    """The PyTorch module with `params`; its second bias is only used by the GRU."""
    D, H = params.w_x.shape[0], params.w_h.shape[0]
    options = {"batch_first": True, "dtype": torch.float64}
    if name == "rnn_relu":
        options["nonlinearity"] = "relu"
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    module = kinds.get(name, torch.nn.RNN)(D, H, **options)
    bias_hh = np.zeros(cell.gates * H)
    if name == "gru":
        bias_hh[2 * H :] = params.b_hn
    with torch.no_grad():
        module.weight_ih_l0[:] = torch.tensor(params.w_x.T)
        module.weight_hh_l0[:] = torch.tensor(params.w_h.T)
        module.bias_ih_l0[:] = torch.tensor(params.b)
        module.bias_hh_l0[:] = torch.tensor(bias_hh)
    return module


@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name):
    cell = CELLS[name]
    params, x, state = random_problem(cell, batch=(3,), T=11, D=5, H=4)

    module = torch_module(cell, name, params)
    x_torch = torch.tensor(x, requires_grad=True)
    start = jax.tree.map(
        lambda s: torch.tensor(s[None], requires_grad=True),
        tuple(state) if name == "lstm" else state,
    )
    y_torch, end_torch = module(x_torch, start)
    ends = end_torch if name == "lstm" else (end_torch,)
    rng = np.random.default_rng(1)  # the weights of weighted_sum, in its order
    loss = 0
    for leaf in [*(end[0] for end in ends), y_torch]:
        loss = loss + (leaf * torch.tensor(rng.standard_normal(leaf.shape))).sum()
    loss.backward()

    (end, y), grads = run_and_gradients(cell, params, x, state)
    numpy = lambda t: t.detach().numpy()
    assert_close(y, numpy(y_torch))
    assert_close(tuple(jax.tree.leaves(end)), tuple(numpy(e[0]) for e in ends))
    d_params, d_x, d_state = grads
    assert_close(d_x, numpy(x_torch.grad))
    starts = start if name == "lstm" else (start,)
    assert_close(
        tuple(jax.tree.leaves(d_state)), tuple(numpy(s.grad[0]) for s in starts)
    )
    assert_close(d_params.w_x, numpy(module.weight_ih_l0.grad).T)
    assert_close(d_params.w_h, numpy(module.weight_hh_l0.grad).T)
    assert_close(d_params.b, numpy(module.bias_ih_l0.grad))
    if name == "gru":
        assert_close(d_params.b_hn, numpy(module.bias_hh_l0.grad)[-4:])


@pytest.mark.parametrize("name", CELLS)
def test_packed_sequences_in_both_directions_and_two_layers(name):
    """Lengths, stack and bidirectional together, against PackedSequence."""
    cell = CELLS[name]
    B, T, D, H = 3, 6, 5, 4
    lengths = np.array([6, 1, 4])
    params = {}
    for layer, width in enumerate([D, 2 * H]):
        for d, suffix in enumerate(["", "_reverse"]):
            params[layer, suffix] = random_problem(
                cell, T=1, D=width, H=H, seed=2 * layer + d
            )[0]
    single = torch_module(cell, name, params[0, ""])
    module = type(single)(
        D,
        H,
        num_layers=2,
        bidirectional=True,
        batch_first=True,
        dtype=torch.float64,
        **({"nonlinearity": "relu"} if name == "rnn_relu" else {}),
    )
    weights = {}
    for (layer, suffix), p in params.items():
        for key, value in torch_module(cell, name, p).state_dict().items():
            weights[key.replace("_l0", f"_l{layer}{suffix}")] = value
    module.load_state_dict(weights)
    x = np.random.default_rng(9).standard_normal((B, T, D))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        y_torch, end_torch = module(packed)
    y_torch, _ = torch.nn.utils.rnn.pad_packed_sequence(y_torch, batch_first=True)

    @jax.jit
    def two_layers(params, x, lengths):
        layers = [
            partial(
                jaxseq.bidirectional,
                partial(cell.sequence, params[layer, ""]),
                partial(cell.sequence, params[layer, "_reverse"]),
            )
            for layer in range(2)
        ]
        return jaxseq.stack(layers, x, lengths=lengths)

    end, y = two_layers(params, x, lengths)
    assert_close(y, y_torch.numpy())
    ends = end_torch if name == "lstm" else (end_torch,)
    got = [jax.tree.leaves(direction) for layer in end for direction in layer]
    for k, part in enumerate(ends):
        assert_close(np.stack([leaves[k] for leaves in got]), part.numpy())
