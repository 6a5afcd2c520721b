"""Weights of PyTorch: `torch.nn.RNN`, `LSTM`, `GRU`, and their cells.

PyTorch's matrices are `(out, in)`, with the gates one under the other, in the order
that jaxseq has them side by side: i, f, g, o of an LSTM, r, z, n of a GRU. There are
two biases, which are kept apart, so that weights come back as they were.

https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
"""

from collections.abc import Mapping
from typing import Any

import jax

import jaxseq
from jaxseq import (
    Cell,
    CellParams,
    GRUParams,
    LSTMExtra,
    LSTMParams,
    Projected,
    ResetBefore,
    RNNParams,
)
from jaxseq._base.check import check, check_choice
from jaxseq.convert._network import Network, directions, width_out
from jaxseq.convert._state import Named

RELU = jaxseq.rnn_cell(activation=jax.nn.relu)
GATES = {1: "an RNN", 3: "a GRU", 4: "an LSTM"}
DIRECTIONS = "", "_reverse"


def from_torch(
    state: Mapping[str, Any], *, prefix: str = "", nonlinearity: str = "tanh"
) -> Network:
    """A network with the weights of a recurrent module of PyTorch.

    Args:
        state: the module's `state_dict()`, or that of a larger one: tensors on the CPU,
            or arrays, by name. Of `RNN`, `LSTM` and `GRU` any number of layers, both
            directions, with and without biases, and `proj_size`; of `RNNCell`,
            `LSTMCell` and `GRUCell` the one layer.
        prefix: what stands in front of the module's own names, such as "encoder.lstm.".
        nonlinearity: that of an RNN, "tanh" or "relu", which a state does not tell.

    Returns:
        A `Network` of NumPy arrays with `RNNParams`, `LSTMParams` or `GRUParams`; of an
        RNN with relu, and an LSTM with `proj_size`, with `CellParams`. Both biases are
        kept, the second as `b_h`, that of a GRU as `b_hn` `(3H,)`.

    Raises:
        ValueError: if a name is missing or left over, or a shape or dtype does not fit.

    Example:
        >>> import numpy as np
        >>> shapes = {"weight_ih_l0": (32, 3), "weight_hh_l0": (32, 8)}
        >>> state = {name: np.ones(shape, "f") for name, shape in shapes.items()}
        >>> network = jaxseq.convert.from_torch(state)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    check_choice(nonlinearity, "nonlinearity", ("tanh", "relu"))
    named = Named(state, "state", prefix)
    if "weight_ih" in named:
        layers = [_read(named, "", None, nonlinearity)]
    else:
        layers: list[Any] = []
        while f"weight_ih_l{len(layers)}" in named or not layers:
            l, below = f"_l{len(layers)}", _width(layers)
            forward = _read(named, l, below, nonlinearity)
            if f"weight_ih{l}_reverse" in named:
                backward = _read(named, f"{l}_reverse", below, nonlinearity)
                layers.append((forward, backward))
            else:
                layers.append(forward)
    named.finish()
    network = Network(tuple(layers), _cell_of(layers[0], nonlinearity))
    directions(network)
    return network


def _read(named: Named, suffix: str, D: int | None, nonlinearity: str) -> Any:
    """The weights of one direction of a layer."""
    Z, got = named.shape("weight_ih" + suffix, 2)
    *_, P = named.shape("weight_hh" + suffix, 2)
    projected = "weight_hr" + suffix in named
    H = named.shape("weight_hr" + suffix, 2)[1] if projected else P
    check(H > 0, "weight_hh" + suffix, "at least one element", "none")
    expected = f"rows of {' or '.join(GATES.values())}: 1, 3 or 4 times {H}"
    check(Z % H == 0 and Z // H in GATES, "weight_ih" + suffix, expected, Z)
    w_x = named.take("weight_ih" + suffix, Z, got if D is None else D).T
    w_h = named.take("weight_hh" + suffix, Z, P).T
    b: Any = None
    b_h: Any = None
    if "bias_ih" + suffix in named or "bias_hh" + suffix in named:
        b = named.take("bias_ih" + suffix, Z)
        b_h = named.take("bias_hh" + suffix, Z)
    if projected:
        check(Z == 4 * H, "weight_hr" + suffix, "none of an RNN or a GRU", "one")
        matrices = Projected(w_h, named.take("weight_hr" + suffix, P, H).T)
        return CellParams(w_x, matrices, b, None if b_h is None else LSTMExtra(b_h))
    if Z == H and nonlinearity == "relu":
        return CellParams(w_x, w_h, b, b_h)
    kind: Any = {1: RNNParams, 3: GRUParams, 4: LSTMParams}[Z // H]
    return kind(w_x, w_h, b, b_h)


def _width(layers: list[Any]) -> int | None:
    """How wide the outputs of the layers so far are."""
    if not layers:
        return None
    both = layers[-1] if type(layers[-1]) is tuple else (layers[-1],)
    return sum(width_out(params.w_h) for params in both)


def _cell_of(layer: Any, nonlinearity: str) -> Cell:
    params = layer[0] if type(layer) is tuple else layer
    if isinstance(params, CellParams):
        projected = isinstance(params.w_h, Projected)
        return (
            jaxseq.lstm_cell(cells=params.w_h.projection.shape[0])
            if projected
            else RELU
        )
    return {RNNParams: jaxseq.RNN, GRUParams: jaxseq.GRU, LSTMParams: jaxseq.LSTM}[
        type(params)
    ]


def to_torch(
    network: Network, *, prefix: str = "", cell: bool = False
) -> dict[str, Any]:
    """The `state_dict` of a recurrent module of PyTorch with these weights.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, of an `lstm_cell` with a
            projection, or of an `rnn_cell` with `jnp.tanh` or `jax.nn.relu`.
        prefix: what to put in front of the names.
        cell: whether the names are those of an `RNNCell`, `GRUCell` or `LSTMCell`.

    Returns:
        NumPy arrays by name, for `module.load_state_dict` after `torch.from_numpy`.
        A bias that the weights do not have is zero, for PyTorch has two or none.

    Raises:
        ValueError: if PyTorch has no such module, with the reason.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> state = jaxseq.convert.to_torch(network)
        >>> sorted(state)
        ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    layers = directions(network)
    known = jaxseq.RNN, jaxseq.GRU, jaxseq.LSTM, RELU
    for own in network.cells:
        projection = getattr(own.init, "cells", None) is not None
        of = (jaxseq.LSTM,) if projection else known
        expected = "a cell that PyTorch has: RNN, GRU, LSTM, relu, or a projection"
        ok = any(own.update == one.update for one in of)
        check(ok, "network.cell", expected, own.update)
    forward, backward = network.cells
    same = len(layers[0]) == 1 or forward.update == backward.update
    expected = "two cells of one kind, for a module of PyTorch is of one"
    check(same, "network.cell", expected, "others")
    H = [own.w_x.shape[1] for both in layers for own in both]
    expected = "layers of one width, for a module of PyTorch has one"
    check(len(set(H)) == 1, "network.layers", expected, f"gates of widths {H}")
    biased = any(a is not None for both in layers for own in both for a in own[2:])
    check(not network.reverse, "network.reverse", "False, for PyTorch has none", True)
    check(network.merge == "concat", "network.merge", "'concat'", network.merge)
    one = len(layers) == 1 and len(layers[0]) == 1
    check(one or not cell, "network", "one layer of one direction, for a cell", "more")
    state: dict[str, Any] = {}
    for i, both in enumerate(layers):
        for params, direction in zip(both, DIRECTIONS, strict=False):
            suffix = "" if cell else f"_l{i}{direction}"
            state |= {
                prefix + k + suffix: a for k, a in _written(params, biased).items()
            }
    return state


def _written(params: Any, biased: bool) -> dict[str, Any]:
    import numpy as np

    w_x, w_h, b, b_h = params
    before = isinstance(w_h, ResetBefore)
    expected = "a GRU whose reset gate stands after the product, as in PyTorch"
    check(not before, "network.layers", expected, "one before it")
    if isinstance(b_h, LSTMExtra):
        for name in ("peepholes", "norms"):
            has = getattr(b_h, name) is not None
            check(not has, f"network.layers: {name}", "None, as in PyTorch", "some")
        b_h = b_h.b_h
    found = {"weight_ih": w_x}
    found |= {"weight_hh": w_h.gates if isinstance(w_h, Projected) else w_h}
    Z = w_x.shape[1]
    if biased:
        zeros = np.zeros(Z, w_x.dtype)
        b, b_h = (zeros if a is None else np.asarray(a) for a in (b, b_h))
        if b_h.shape != b.shape:  # of the candidate of a GRU alone
            b_h = np.concatenate([zeros[: Z - b_h.shape[0]], b_h])
        found |= {"bias_ih": b, "bias_hh": b_h}
    if isinstance(w_h, Projected):
        found |= {"weight_hr": w_h.projection}
    return {k: np.array(np.asarray(a).T, order="C") for k, a in found.items()}
