"""Weights of Flax NNX: its recurrent cells, alone and in what runs them over time.

`nnx.LSTMCell` has a matrix for each gate, the other cells have all gates side by side.
The only bias of an LSTM is that of the recurrent product; a GRU has none of it.

https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxseq._base.check import check, check_flag
from jaxseq.convert._common import Function, taken_apart
from jaxseq.convert._flax import CELLS, by_gate, each_gate, network_of, placed
from jaxseq.convert._gates import Weights, gru_biases, one_bias
from jaxseq.convert._network import Network
from jaxseq.convert._state import Named

LSTM = ["ii", "if_", "ig", "io"], ["hi", "hf", "hg", "ho"]


def from_nnx(
    state: Any,
    *,
    prefix: str = "",
    gate_fn: Function = jax.nn.sigmoid,
    activation_fn: Function = jnp.tanh,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """A network with the weights of a recurrent module of Flax NNX.

    Args:
        state: arrays in nested dicts, such as `nnx.to_pure_dict(nnx.state(module))`, or
            by their paths, tuples or joined by "/"; of a `SimpleCell`, `LSTMCell`,
            `OptimizedLSTMCell` or `GRUCell`, of an `nnx.RNN` or `nnx.Bidirectional` of
            them, or of an `nnx.Sequential` of these. Or a list of such from the input
            up, with a pair `(forward, backward)` for a layer of two directions. States
            of random numbers, `rngs`, are left out.
        prefix: the path to the module in a larger state, such as "encoder/rnn/".
        gate_fn: the cell's own argument, which its weights do not tell.
        activation_fn: the same. A `SimpleCell` with `residual` cannot be converted.
        reverse: whether it is an `nnx.RNN(reverse=True)`. Without its `keep_order` NNX
            gives outputs in the order in which it made them; jaxseq keeps them at the
            position of their inputs.
        merge: what becomes of the outputs of two directions; see `bidirectional`.

    Returns:
        A `Network` of NumPy arrays with `RNNParams`, `LSTMParams` or `GRUParams`, with
        `CellParams` for other activations.

    Raises:
        ValueError: if a name is missing or left over, a shape or dtype does not fit, or
            layers are of different kinds.

    Example:
        >>> import numpy as np
        >>> i, h = {"kernel": np.ones((3, 32), "f")}, {"kernel": np.ones((8, 32), "f")}
        >>> h["bias"] = np.ones(32, "f")
        >>> state = {"cell": {"dense_i": i, "dense_h": h}}
        >>> network = jaxseq.convert.from_nnx(state)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    given = state, "state", prefix, gate_fn, activation_fn
    return network_of(_read_nnx, *given, reverse=reverse, merge=merge)


def _read_nnx(named: Named, cell: str, below: int | None) -> tuple[int, Weights]:
    of_x, of_h = LSTM
    if any(f"{cell}{gate}/kernel" in named for gate in of_x + of_h):
        return 4, by_gate(named, cell, below, of_x, of_h, of_h)
    i, h = cell + "dense_i/", cell + "dense_h/"
    H, Z = named.shape(h + "kernel", 2)
    D = named.shape(i + "kernel", 2)[0] if below is None else below
    expected = f"columns of an RNN, a GRU or an LSTM: 1, 3 or 4 times {H}"
    check(Z in (H, 3 * H, 4 * H), h + "kernel", expected, Z)
    w_x, w_h = named.take(i + "kernel", D, Z), named.take(h + "kernel", H, Z)
    b = named.take((h if Z == 4 * H else i) + "bias", Z)
    return Z // H, Weights(w_x, w_h, b)


def to_nnx(
    network: Network, *, cell: bool = False, optimized: bool = True, lossy: bool = False
) -> dict[str, Any]:
    """The weights of a recurrent module of Flax NNX.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, or of cells that differ from
            them in their activations, with which the module has to be made.
        cell: whether the names are those of a cell, not of an `nnx.RNN`.
        optimized: whether an LSTM is an `OptimizedLSTMCell`, not an `LSTMCell`.
        lossy: whether to leave out the bias of the recurrent product of a GRU's
            candidate, `b_hn`, which NNX does not have. Outputs change if it is not 0.

    Returns:
        NumPy arrays in nested dicts, for `nnx.update(module, state)`: those of an
        `nnx.RNN`, of an `nnx.Bidirectional` for two directions, and of an
        `nnx.Sequential` of these for several layers. Biases that the weights do not
        have are zero, and two biases where Flax has one are added.
        `reverse` and `merge` are not in it: they are arguments of the modules.

    Raises:
        ValueError: if NNX has no such module, with the reason.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> state = jaxseq.convert.to_nnx(network)
        >>> state["cell"]["dense_h"]["kernel"].shape
        (8, 32)
    """
    optimized = check_flag(optimized, "optimized")
    lossy = check_flag(lossy, "lossy")
    gates, layers = taken_apart(network, "Flax NNX", CELLS, free=True)
    cells = [[_nnx(gates, w, optimized, lossy) for w in own] for own in layers]
    runs = placed(cells, cell)
    return runs[0] if len(runs) == 1 else {"layers": dict(enumerate(runs))}


def _nnx(gates: int, weights: Weights, optimized: bool, lossy: bool) -> dict[str, Any]:
    if gates == 4 and not optimized:
        of_x, of_h = LSTM
        return each_gate(weights, of_x, of_h, of_h, one_bias(weights))
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
