"""Weights of PyTorch: `torch.nn.RNN`, `LSTM`, `GRU`, and their cells.

PyTorch's matrices are `(out, in)`, with the gates one under the other, in the order
that jaxseq has them side by side: i, f, g, o of an LSTM, r, z, n of a GRU. There are
two biases, which are kept apart, so that weights come back as they were.

https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq import Projected
from jaxseq._base.check import check_choice
from jaxseq.convert._common import (
    CELLS,
    Found,
    built,
    check_cell,
    check_forward,
    check_one_width,
    gates_of,
    taken_apart,
    width,
)
from jaxseq.convert._gates import Weights, two_biases
from jaxseq.convert._names import Named, path_of
from jaxseq.convert._network import Network

RELU = jaxseq.rnn_cell(activation=jax.nn.relu)
NAMES = "weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"
DIRECTIONS = "", "_reverse"


def from_torch(
    weights: Mapping[str, Any], *, prefix: str = "", nonlinearity: str = "tanh"
) -> Network:
    """Converts the weights of a recurrent module of PyTorch.

    Args:
        weights: the `state_dict()` of an `RNN`, `LSTM` or `GRU` with any number of
            layers, in one or both directions, with or without biases and `proj_size`;
            or of an `RNNCell`, `LSTMCell` or `GRUCell`. Values are tensors on the CPU
            or arrays. NumPy cannot read bfloat16 tensors: convert these to float32
            first, with `tensor.float()`.
        prefix: the path of the module in the `state_dict()` of a larger one, such as
            "encoder.lstm".
        nonlinearity: "tanh" or "relu", as the `RNN` was made with. It is not part of
            the weights. LSTMs and GRUs ignore it.

    Returns:
        A `Network` of NumPy arrays: `RNNParams`, `LSTMParams` or `GRUParams`, or
        `CellParams` for an RNN with relu and for an LSTM with `proj_size`. Both biases
        are kept, the second one as `b_h`, or as `b_hn` `(3H,)` of a GRU.

    Raises:
        ValueError: if a name is missing or not used, or if a shape or dtype is wrong.

    Example:
        >>> import numpy as np
        >>> shapes = {"weight_ih_l0": (32, 3), "weight_hh_l0": (32, 8)}
        >>> weights = {name: np.ones(shape, "f") for name, shape in shapes.items()}
        >>> network = jaxseq.convert.from_torch(weights)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    check_choice(nonlinearity, "nonlinearity", ("tanh", "relu"))
    prefix = path_of(prefix, ".")
    named = Named(weights, prefix)
    # what one layer has, all of them have
    has = {name for name in NAMES for k in weights if k.startswith(prefix + name)}
    layers: list[list[Found]] = []
    for both in _suffixes(named, prefix + NAMES[0]):
        below = width(layers, "concat")
        names = [[prefix + name + suffix for name in NAMES] for suffix in both]
        layers.append([_read(named, own, below, has) for own in names])
    named.finish()
    relu = nonlinearity == "relu" and layers[0][0].gates == 1
    return built(layers, activation=jax.nn.relu if relu else jnp.tanh)


def _suffixes(named: Named, name: str) -> list[list[str]]:
    """Of each layer the ends of the names, for each of its directions."""
    if name in named:
        return [[""]]
    n = 1
    while f"{name}_l{n}" in named:
        n += 1
    each = [[f"_l{i}{direction}" for direction in DIRECTIONS] for i in range(n)]
    return [[l, back] if name + back in named else [l] for l, back in each]


def _read(named: Named, names: list[str], below: int | None, has: set[str]) -> Found:
    """The weights of one direction of a layer, in which `has` are to be there."""
    w_ih, w_hh, w_hr, b_ih, b_hh = names
    shape = named.shape(w_hh, None, None)
    projected, P = "weight_hr" in has, shape[1]
    gates = 4 if projected else gates_of(w_hh, shape, rows=True)
    H = named.shape(w_hr, P, None)[1] if projected else P
    w_x = named.take(w_ih, gates * H, below).T
    w_h = named.take(w_hh, gates * H, P).T
    if projected:
        w_h = Projected(w_h, named.take(w_hr, P, H).T)
    biased = not has.isdisjoint(("bias_ih", "bias_hh"))
    b, b_h = (named.take(b, gates * H) if biased else None for b in (b_ih, b_hh))
    return Found(w_ih, gates, Weights(w_x, w_h, b, b_h))


def to_torch(
    network: Network, *, prefix: str = "", cell: bool = False
) -> dict[str, Any]:
    """Converts a network into the `state_dict` of a recurrent module of PyTorch.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, of an `lstm_cell` with a
            projection, or of an `rnn_cell` with `jnp.tanh` or `jax.nn.relu`.
        prefix: the path of the module in a larger one, such as "encoder.lstm".
        cell: whether to name the weights as an `RNNCell`, `GRUCell` or `LSTMCell`
            does, which is one layer of one direction.

    Returns:
        NumPy arrays by name. Make tensors of them with `torch.from_numpy` and pass
        these to `module.load_state_dict`. bfloat16 arrays, which `torch.from_numpy`
        refuses, become tensors by
        `torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)`. PyTorch has two
        biases everywhere or none, so a single missing one is written as zeros.

    Raises:
        ValueError: if PyTorch has no such module; the message says why.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> weights = jaxseq.convert.to_torch(network)
        >>> sorted(weights)
        ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    prefix = path_of(prefix, ".")
    cells = *CELLS, RELU
    _, layers = taken_apart(network, "PyTorch", cells, projected=True)
    check_forward(network, "PyTorch")
    check_one_width(layers, "PyTorch")
    cell = check_cell(cell, layers)
    biased = any(a is not None for both in layers for own in both for a in own[2:])
    found: dict[str, Any] = {}
    for i, both in enumerate(layers):
        for own, direction in zip(both, DIRECTIONS, strict=False):
            suffix = "" if cell else f"_l{i}{direction}"
            arrays = _written(own, biased)
            found |= {f"{prefix}{name}{suffix}": a for name, a in arrays.items()}
    return found


def _written(weights: Weights, biased: bool) -> dict[str, Any]:
    import numpy as np

    w_ih, w_hh, *_ = weights
    found = {"weight_ih": w_ih, "weight_hh": w_hh}
    if isinstance(w_hh, Projected):
        found |= {"weight_hh": w_hh.gates, "weight_hr": w_hh.projection}
    if biased:
        found |= zip(("bias_ih", "bias_hh"), two_biases(weights), strict=True)
    return {name: np.ascontiguousarray(a.T) for name, a in found.items()}
