"""Weights of Flax Linen: its recurrent cells, alone and in what runs them over time.

There is a matrix for each gate. The only bias of an LSTM is that of the recurrent
product; a GRU has one of its candidate's recurrent product too.

https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html#recurrent
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.check import check, check_flag
from jaxseq.convert._common import Function, taken_apart
from jaxseq.convert._flax import CELLS, by_gate, each_gate, network_of, placed
from jaxseq.convert._gates import Weights, blocks, gru_biases, one_bias, side_by_side
from jaxseq.convert._network import Network
from jaxseq.convert._state import Named

GATES = {
    1: (["i"], ["h"]),
    2: (["if", "in"], ["hf", "hn"]),
    3: (["ir", "iz", "in"], ["hr", "hz", "hn"]),
    4: (["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"]),
}


def from_linen(
    params: Any,
    *,
    prefix: str = "",
    gate_fn: Function = jax.nn.sigmoid,
    activation_fn: Function = jnp.tanh,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """A network with the weights of a recurrent module of Flax Linen.

    Args:
        params: arrays in nested dicts, such as `variables["params"]`, or by their
            paths, tuples or joined by "/"; of a `SimpleCell`, `LSTMCell`,
            `OptimizedLSTMCell`, `GRUCell` or `MGUCell`, of an `nn.RNN` or
            `nn.Bidirectional` of them, or of an `nn.Sequential` of these. Or a list of
            such from the input up, with a pair `(forward, backward)` for a layer of two
            directions.
        prefix: the path to the module in larger params, such as "encoder/".
        gate_fn: the cell's own argument, which its weights do not tell.
        activation_fn: the same. A `SimpleCell` with `residual` cannot be converted.
        reverse: whether it is an `nn.RNN(reverse=True)`; see `from_nnx`.
        merge: what becomes of the outputs of two directions; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays with `RNNParams`, `LSTMParams` or `GRUParams`, with
        `CellParams` for other activations. An `MGUCell` becomes a GRU whose reset and
        update gates have the same weights; training would change them apart.

    Raises:
        ValueError: if a name is missing or left over, a shape or dtype does not fit,
            layers are of different kinds, or an `MGUCell` has no reset gate.

    Example:
        >>> import numpy as np
        >>> i, h = {"kernel": np.ones((3, 8), "f")}, {"kernel": np.ones((8, 8), "f")}
        >>> params = {"cell": {"i": i | {"bias": np.ones(8, "f")}, "h": h}}
        >>> network = jaxseq.convert.from_linen(params)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    given = params, "params", prefix, gate_fn, activation_fn
    return network_of(_read_linen, *given, reverse=reverse, merge=merge)


def _read_linen(named: Named, cell: str, below: int | None) -> tuple[int, Weights]:
    has = lambda *gates: any(f"{cell}{gate}/kernel" in named for gate in gates)
    if has("ii", "ig", "io", "hi", "hg", "ho"):
        of_x, of_h = GATES[4]
        return 4, by_gate(named, cell, below, of_x, of_h, of_h)
    if has("i", "h"):
        return 1, by_gate(named, cell, below, *GATES[1], GATES[1][0])
    mgu = has("if", "hf")
    bias = cell + "hn/bias"
    reason = "a bias; an MGUCell without a reset gate is no GRU"
    check(not mgu or bias in named, bias, reason, "none")
    gates = 2 if mgu else 3
    weights = by_gate(named, cell, below, *GATES[gates], GATES[gates][0])
    b_hn = named.take(bias, weights.w_h.shape[0])
    if mgu:  # the forget gate is both the reset and the update gate
        w_x, w_h, b = (side_by_side([blocks(a, 2)[0], a]) for a in weights[:3])
        return 3, Weights(w_x, w_h, b, b_hn)
    return 3, weights._replace(b_h=b_hn)


def to_linen(
    network: Network, *, cell: bool = False, mgu: bool = False
) -> dict[str, Any]:
    """The weights of a recurrent module of Flax Linen.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, or of cells that differ from
            them in their activations, with which the module has to be made.
        cell: whether the names are those of a cell, not of an `nn.RNN`.
        mgu: whether a GRU is an `MGUCell`; its reset and update gates have to have the
            same weights.

    Returns:
        NumPy arrays in nested dicts, for `module.apply({"params": params}, x)`: those
        of an `nn.RNN`, of an `nn.Bidirectional` for two directions, and of an
        `nn.Sequential` of these for several layers. Biases that the weights do not have
        are zero, and two biases where Flax has one are added.
        `reverse` and `merge` are not in it: they are arguments of the modules.

    Raises:
        ValueError: if Linen has no such module, with the reason.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> params = jaxseq.convert.to_linen(network)
        >>> sorted(params["cell"])
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    mgu = check_flag(mgu, "mgu")
    gates, layers = taken_apart(network, "Flax Linen", CELLS, free=True)
    check(gates == 3 or not mgu, "mgu", "False for what is no GRU", mgu)
    cells = [[_linen(gates, w, mgu) for w in own] for own in layers]
    runs = placed(cells, cell)
    if len(runs) == 1:
        return runs[0]
    return {f"layers_{i}": own for i, own in enumerate(runs)}


def _linen(gates: int, weights: Weights, mgu: bool) -> dict[str, Any]:
    of_x, of_h = GATES[gates]
    if gates != 3:
        of_b = of_h if gates == 4 else of_x
        return each_gate(weights, of_x, of_h, of_b, one_bias(weights))
    b, b_hn = gru_biases(weights)
    if mgu:
        weights, b = _forget_gate(weights._replace(b=b))
        of_x, of_h = GATES[2]
    found = each_gate(weights, of_x, of_h, of_x, b)
    found["hn"]["bias"] = b_hn
    return found


def _forget_gate(weights: Weights) -> tuple[Weights, Any]:
    """Weights and bias of an MGU, of a GRU's whose first two gates are the same."""
    parts = [blocks(a, 3) for a in weights[:3]]
    same = all((r == z).all() for r, z, _ in parts)
    check(same, "network", "a GRU with one gate twice, for mgu", "two gates")
    w_x, w_h, b = (side_by_side([z, n]) for _, z, n in parts)
    return Weights(w_x, w_h), b
