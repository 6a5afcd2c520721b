"""Writes weights of Flax NNX and Linen; see `_flax_from` for where they differ."""

from typing import Any

from jaxseq._base.check import check, check_flag
from jaxseq.convert._common import CELLS, check_cell, taken_apart
from jaxseq.convert._flax_from import LINEN, NNX_LSTM
from jaxseq.convert._gates import Weights, blocks, gru_biases, one_bias, side_by_side
from jaxseq.convert._names import path_of
from jaxseq.convert._network import Network


def to_nnx(
    network: Network,
    *,
    prefix: str = "",
    cell: bool = False,
    optimized: bool = True,
    lossy: bool = False,
) -> dict[str, Any]:
    """Converts a network into the weights of a recurrent module of Flax NNX.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, or of cells that differ from
            these in their activations. The weights do not contain the activations:
            make the module of Flax with them.
        prefix: the path of the module in a larger one, such as "encoder/rnn".
        cell: whether to name the weights as a cell does, not as an `nnx.RNN`.
        optimized: whether an LSTM is an `OptimizedLSTMCell`, not an `LSTMCell`.
        lossy: whether to drop `b_hn`, the bias inside the reset gate of a GRU, which
            NNX does not have. Outputs change if it is not 0.

    Returns:
        NumPy arrays in nested dicts, for `nnx.update(module, weights)`. They are those
        of an `nnx.RNN`, of an `nnx.Bidirectional` for two directions, and of an
        `nnx.Sequential` of these for several layers. Missing biases are written as
        zeros, and two biases are added where Flax has one. `reverse` and `merge` are
        not part of the weights: make the module with them.

    Raises:
        ValueError: if NNX has no such module; the message says why.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> weights = jaxseq.convert.to_nnx(network)
        >>> weights["cell"]["dense_h"]["kernel"].shape
        (8, 32)
    """
    optimized = check_flag(optimized, "optimized")
    lossy = check_flag(lossy, "lossy")
    gates, layers = taken_apart(network, "Flax NNX", CELLS, free=True)
    runs = _runs([[_nnx(gates, w, optimized, lossy) for w in own] for own in layers])
    found = runs[0] if len(runs) == 1 else {"layers": dict(enumerate(runs))}
    found = found["cell"] if check_cell(cell, layers) else found
    return _below(prefix, found, numbered=True)


def _nnx(gates: int, weights: Weights, optimized: bool, lossy: bool) -> dict[str, Any]:
    if gates == 4 and not optimized:
        return _each_gate(weights, *NNX_LSTM, NNX_LSTM[1], one_bias(weights))
    i, h = {"kernel": weights.w_x}, {"kernel": weights.w_h}
    if gates == 4:
        h["bias"] = one_bias(weights)
    elif gates == 1:
        i["bias"] = one_bias(weights)
    else:
        i["bias"], b_hn = gru_biases(weights)
        reason = "0, for a GRU of Flax NNX has none; lossy=True leaves it out"
        got = f"values up to {abs(b_hn).max()}"
        check(lossy or not b_hn.any(), "b_hn", reason, got)
    return {"dense_i": i, "dense_h": h}


def to_linen(
    network: Network, *, prefix: str = "", cell: bool = False, mgu: bool = False
) -> dict[str, Any]:
    """Converts a network into the weights of a recurrent module of Flax Linen.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, or of cells that differ from
            these in their activations. The weights do not contain the activations:
            make the module of Flax with them.
        prefix: the path of the module in a larger one, such as "encoder/rnn"; of a
            module that is made under `@nn.compact` that of its cell, such as
            "encoder/OptimizedLSTMCell_0", with `cell=True`.
        cell: whether to name the weights as a cell does, not as an `nn.RNN`.
        mgu: whether a GRU is an `MGUCell`. The weights of its reset and update gates
            have to be equal.

    Returns:
        NumPy arrays in nested dicts, for `module.apply({"params": weights}, x)`. They
        are those of an `nn.RNN`, of an `nn.Bidirectional` for two directions, and of
        an `nn.Sequential` of these for several layers. Missing biases are written as
        zeros, and two biases are added where Flax has one. `reverse` and `merge` are
        not part of the weights: make the module with them.

    Raises:
        ValueError: if Linen has no such module; the message says why.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> weights = jaxseq.convert.to_linen(network)
        >>> sorted(weights["cell"])
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    mgu = check_flag(mgu, "mgu")
    gates, layers = taken_apart(network, "Flax Linen", CELLS, free=True)
    check(gates == 3 or not mgu, "mgu", "False for what is no GRU", mgu)
    runs = _runs([[_linen(gates, w, mgu) for w in own] for own in layers])
    named = {f"layers_{i}": own for i, own in enumerate(runs)}
    found = runs[0] if len(runs) == 1 else named
    return _below(prefix, found["cell"] if check_cell(cell, layers) else found)


def _linen(gates: int, weights: Weights, mgu: bool) -> dict[str, Any]:
    of_x, of_h = LINEN[gates]
    if gates != 3:
        of_b = of_h if gates == 4 else of_x
        return _each_gate(weights, of_x, of_h, of_b, one_bias(weights))
    b, b_hn = gru_biases(weights)
    if mgu:
        weights, b = _forget_gate(weights._replace(b=b))
        of_x, of_h = LINEN[2]
    found = _each_gate(weights, of_x, of_h, of_x, b)
    found["hn"]["bias"] = b_hn
    return found


def _forget_gate(weights: Weights) -> tuple[Weights, Any]:
    """Weights and bias of an MGU, of a GRU's whose first two gates are the same."""
    parts = [blocks(a, 3) for a in weights[:3]]
    same = all((r == z).all() for r, z, _ in parts)
    check(same, "network", "a GRU with one gate twice, for mgu", "two gates")
    w_x, w_h, b = (side_by_side([z, n]) for _, z, n in parts)
    return Weights(w_x, w_h), b


def _each_gate(
    weights: Weights, of_x: list[str], of_h: list[str], of_b: list[str], b: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for names, w in ((of_x, weights.w_x), (of_h, weights.w_h)):
        parts = blocks(w, len(names))
        found |= {k: {"kernel": a.copy()} for k, a in zip(names, parts, strict=True)}
    for name, a in zip(of_b, blocks(b, len(of_b)), strict=True):
        found[name]["bias"] = a.copy()
    return found


def _runs(layers: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The cells of each layer, in what runs them over time."""
    each = [[{"cell": own} for own in cells] for cells in layers]
    both = "forward_rnn", "backward_rnn"
    return [
        own[0] if len(own) == 1 else dict(zip(both, own, strict=True)) for own in each
    ]


def _below(prefix: str, weights: Any, *, numbered: bool = False) -> dict[str, Any]:
    """Weights inside of the dicts that a prefix names, some by numbers in NNX."""
    for name in reversed(path_of(prefix, "./").split("/")[:-1]):
        weights = {int(name) if numbered and name.isdigit() else name: weights}
    return weights
