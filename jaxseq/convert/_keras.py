"""Weights of Keras: `SimpleRNN`, `LSTM`, `GRU`, and `Bidirectional` of them.

Keras's matrices are `(in, out)`, as those of jaxseq. An LSTM has the same gates in the
same order, a GRU has them in the order z, r, h; with `reset_after` it has two biases,
`(2, 3H)`, and without it the reset gate stands before the recurrent product.

https://keras.io/api/layers/recurrent_layers/
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jaxseq
from jaxseq import ResetBefore
from jaxseq._base.check import check, check_choice, check_flag
from jaxseq._base.functions import FUNCTIONS
from jaxseq.convert._common import (
    CELLS,
    Found,
    Function,
    built,
    gates_of,
    taken_apart,
    width,
)
from jaxseq.convert._gates import (
    Weights,
    blocks,
    one_bias,
    reordered,
    side_by_side,
    two_biases,
)
from jaxseq.convert._keras_config import check_weights, options
from jaxseq.convert._names import Named
from jaxseq.convert._network import Network

# z, r, h and r, z, n, either way
GRU_ORDER = 1, 0, 2
NAMES = "kernel", "recurrent_kernel", "bias"
OPTIONS = "tanh", "sigmoid", None, False, "concat"  # where they are not given
ACTIVATIONS: dict[str, Function] = {
    **{name: f for name, f in FUNCTIONS.items() if name != "identity"},
    "exponential": jnp.exp,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "leaky_relu": jaxseq.activation("leaky_relu", alpha=0.2),
    "linear": jaxseq.activation("affine"),
    "swish": jax.nn.silu,
}


def from_keras(
    weights: Sequence[Any],
    *,
    config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    activation: str | Function = "tanh",
    recurrent_activation: str | Function = "sigmoid",
    reset_after: bool | None = None,
    reverse: bool = False,
    merge: str | None = "concat",
) -> Network:
    """Converts the weights of recurrent layers of Keras.

    Args:
        weights: `layer.get_weights()` of a `SimpleRNN`, `LSTM` or `GRU`, or of a
            `Bidirectional` of one. For several layers, a list of these, first layer
            first. `model.get_weights()` will not do, since it does not show which
            arrays belong to one layer.
        config: `layer.get_config()`, or a list of these for several layers, which have
            to agree. All other options are then taken from it, so none can be given.
            It may be that of an `RNN` with a `SimpleRNNCell`, `LSTMCell` or `GRUCell`.
        activation: the layer's `activation`: its name in Keras 3, or a function. The
            hard sigmoid of Keras 1 and 2 is `jaxseq.activation("hard_sigmoid")`.
        recurrent_activation: the layer's `recurrent_activation`, likewise.
        reset_after: the `reset_after` of a GRU. If None, it follows from the shape of
            the bias, and is True if there is no bias.
        reverse: the `go_backwards` of a single layer. Keras returns the outputs of such
            a layer in reverse; jaxseq returns each at the position of its input.
        merge: how the outputs of two directions are combined; see `bidirectional`.
            It is the `merge_mode` of Keras, whose "ave" is "mean" here.

    Returns:
        A `Network` of NumPy arrays: `RNNParams`, `LSTMParams` or `GRUParams`, or
        `CellParams` for other activations and for a GRU without `reset_after`.

    Raises:
        ValueError: if the number of arrays, a shape or a dtype is wrong, if layers are
            of different kinds, if an activation is unknown, if `config` is not that of
            the weights, or if its `merge_mode` is "mul".

    Example:
        >>> import numpy as np
        >>> weights = [np.ones(shape, "f") for shape in ((3, 32), (8, 32), (32,))]
        >>> network = jaxseq.convert.from_keras(weights)
        >>> (state,), y = network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    each = _lists(weights)
    if config is not None:
        own = activation, recurrent_activation, reset_after, reverse, merge
        expected = "no other options, all of which it says"
        check(own == OPTIONS, "config", expected, "some, too")
        said = options(config, len(each))
        activation, recurrent_activation, reset_after, reverse, merge = said.values()
    reverse = check_flag(reverse, "reverse")
    reason = "False for several layers, each of which would turn its inputs around"
    check(not reverse or len(each) == 1, "reverse", reason, reverse)
    if reset_after is not None:
        reset_after = check_flag(reset_after, "reset_after")
    layers: list[list[Found]] = []
    for i, arrays in enumerate(each):
        below = width(layers, merge)
        layers.append(_read(arrays, f"weights[{i}]", below, reset_after))
    if config is not None:
        check_weights(config, layers)
    gate = _function(recurrent_activation, "recurrent_activation")
    function = _function(activation, "activation")
    return built(layers, gate=gate, activation=function, reverse=reverse, merge=merge)


def _lists(weights: Any) -> list[Any]:
    """The arrays of each layer."""
    ok = type(weights) in (list, tuple) and len(weights) > 0
    expected = "layer.get_weights(), or a list of them"
    check(ok, "weights", expected, type(weights).__name__)
    several = type(weights[0]) in (list, tuple)
    return list(weights) if several else [weights]


def _read(
    arrays: Any, name: str, below: int | None, reset_after: bool | None
) -> list[Found]:
    """Of each direction of a layer its two or three arrays."""
    import numpy as np

    n = len(arrays) if type(arrays) in (list, tuple) else type(arrays).__name__
    expected = "2 or 3 arrays of a layer, or 4 or 6 of a Bidirectional"
    check(n in (2, 3, 4, 6), name, expected, n)
    each = len(arrays) if len(arrays) < 4 else len(arrays) // 2
    keys = [f"{name}[{i}] ({NAMES[i % each]})" for i in range(len(arrays))]
    named = Named(dict(zip(keys, arrays, strict=True)))
    if reset_after is None:
        reset_after = each == 2 or np.ndim(arrays[2]) == 2
    found = []
    for first in range(0, len(arrays), each):
        own = keys[first : first + each]
        gates, weights = _direction(named, own, below, reset_after)
        found.append(Found(own[0], gates, weights))
    return found


def _direction(
    named: Named, keys: list[str], below: int | None, after: bool
) -> tuple[int, Weights]:
    kernel, recurrent, *bias = keys
    shape = H, Z = named.shape(recurrent, None, None)
    gates = gates_of(recurrent, shape)
    w_x, w_h = named.take(kernel, below, Z), named.take(recurrent, H, Z)
    if gates != 3:
        return gates, Weights(w_x, w_h, named.take(bias[0], Z) if bias else None)
    w_x, w_h = reordered(w_x, GRU_ORDER), reordered(w_h, GRU_ORDER)
    if not after:
        r, z, n = blocks(w_h, 3)
        w_h = ResetBefore(side_by_side([r, z]), n)
    if not bias:
        return 3, Weights(w_x, w_h)
    b = named.take(bias[0], *((2, Z) if after else (Z,)))
    b = reordered(b, GRU_ORDER)
    return 3, Weights(w_x, w_h, *b) if after else Weights(w_x, w_h, b)


def _function(given: Any, name: str) -> Function:
    if callable(given):
        return given
    check_choice(given, name, tuple(ACTIVATIONS))
    return ACTIVATIONS[given]


def to_keras(network: Network) -> list[list[Any]]:
    """Converts a network into the weights of recurrent layers of Keras.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, of `gru_cell` with
            `reset_after=False`, or of cells that differ from these in their
            activations. The weights do not contain the activations: make the layers
            of Keras with them.

    Returns:
        A list of NumPy arrays for each layer, for `layer.set_weights`: two or three,
        or four or six for a `Bidirectional`. Without biases they are for a layer with
        `use_bias=False`. Two biases are added where Keras has one.

    Raises:
        ValueError: if Keras has no such layers; the message says why.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> (weights,) = jaxseq.convert.to_keras(network)
        >>> [a.shape for a in weights]
        [(3, 24), (8, 24), (2, 24)]
    """
    gates, layers = taken_apart(network, "Keras", CELLS, free=True, before=None)
    reason = "False for several layers, each of which would turn its inputs around"
    one = not network.reverse or len(layers) == 1
    check(one, "network.reverse", reason, network.reverse)
    return [[a for weights in own for a in _written(gates, weights)] for own in layers]


def _written(gates: int, weights: Weights) -> list[Any]:
    import numpy as np

    w_x, w_h, b, b_h = weights
    bias = [] if b is None and b_h is None else [one_bias(weights)]
    if gates != 3:
        return [w_x, w_h, *bias]
    if isinstance(w_h, ResetBefore):
        w_h = side_by_side([w_h.gates, w_h.candidate])
    elif bias:
        bias = [np.stack(two_biases(weights))]
    return [reordered(a, GRU_ORDER) for a in (w_x, w_h, *bias)]
