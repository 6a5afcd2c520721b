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
from jaxseq.convert._common import Found, Function, built, taken_apart, width
from jaxseq.convert._gates import (
    Weights,
    blocks,
    of_all_gates,
    one_bias,
    reordered,
    side_by_side,
    zeros,
)
from jaxseq.convert._network import Network
from jaxseq.convert._state import Named

CELLS = {1: jaxseq.RNN, 3: jaxseq.GRU, 4: jaxseq.LSTM}
# z, r, h and r, z, n, either way
GRU_ORDER = 1, 0, 2
MERGES = {"concat": "concat", "sum": "sum", "ave": "mean", None: None}
NAMES = "kernel", "recurrent_kernel", "bias"
ACTIVATIONS: dict[str, Function] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "leaky_relu": jaxseq.activation("leaky_relu", alpha=0.2),
    "linear": jaxseq.activation("affine"),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def from_keras(
    weights: Sequence[Any],
    *,
    config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    activation: str | Function = "tanh",
    recurrent_activation: str | Function = "sigmoid",
    reset_after: bool | None = None,
    go_backwards: bool = False,
    merge_mode: str | None = "concat",
) -> Network:
    """A network with the weights of recurrent layers of Keras.

    Args:
        weights: `layer.get_weights()` of a `SimpleRNN`, `LSTM` or `GRU`, or of a
            `Bidirectional`, with or without biases; or a list of such, for layers each
            on the outputs of the one below. Not `model.get_weights()`, which does not
            tell two layers from two directions.
        config: `layer.get_config()`, or a list of such for each layer, which have to
            agree. It takes the place of all arguments below.
        activation: that of the layer, by its name in Keras 3 or as a function. The
            hard sigmoid of Keras 1 and 2 is `jaxseq.activation("hard_sigmoid")`.
        recurrent_activation: that of the gates.
        reset_after: that of a GRU. If None its bias tells, and without one it is True.
        go_backwards: that of the one layer. Keras then gives outputs in the order in
            which it made them; jaxseq keeps them at the position of their inputs.
        merge_mode: that of a `Bidirectional`: "concat", "sum", "ave", or None.

    Returns:
        A `Network` of NumPy arrays with `RNNParams`, `LSTMParams` or `GRUParams`, with
        `CellParams` for other activations and for a GRU without `reset_after`.

    Raises:
        ValueError: if the number of arrays, a shape or a dtype does not fit, layers are
            of different kinds, an activation is not known, or `merge_mode` is "mul".

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
        how = _options(config, len(each))
        activation, recurrent_activation = how["activation"], how["recurrent"]
        reset_after, go_backwards = how["reset_after"], how["go_backwards"]
        merge_mode = how["merge_mode"]
    check_choice(merge_mode, "merge_mode", tuple(MERGES))
    merge = MERGES[merge_mode]
    backwards = check_flag(go_backwards, "go_backwards")
    reason = "False for several layers, each of which would turn its inputs around"
    check(not backwards or len(each) == 1, "go_backwards", reason, backwards)
    if reset_after is not None:
        reset_after = check_flag(reset_after, "reset_after")
    layers: list[list[Found]] = []
    for i, arrays in enumerate(each):
        below, name = width(layers, merge), f"weights[{i}]"
        layers.append(_read(arrays, name, below, reset_after))
    both = len(layers[0]) == 2
    if config is not None:
        first = config if isinstance(config, Mapping) else config[0]
        says = "merge_mode" in first
        expected = "4 or 6 arrays of a Bidirectional" if says else "2 or 3 arrays"
        check(both == says, "weights[0]", f"{expected}, by config", len(each[0]))
    reason = "False for a Bidirectional"
    check(not (both and backwards), "go_backwards", reason, backwards)
    gate = _function(recurrent_activation, "recurrent_activation")
    how = {"gate": gate, "activation": _function(activation, "activation")}
    return built(layers, **how, reverse=backwards, merge=merge)


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
    named = Named(dict(zip(keys, arrays, strict=True)), name)
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
    H, Z = named.shape(recurrent, 2)
    expected = f"columns of a SimpleRNN, a GRU or an LSTM: 1, 3 or 4 times {H}"
    check(Z in (H, 3 * H, 4 * H), recurrent, expected, Z)
    D = named.shape(kernel, 2)[0] if below is None else below
    w_x, w_h = named.take(kernel, D, Z), named.take(recurrent, H, Z)
    if Z != 3 * H:
        return Z // H, Weights(w_x, w_h, named.take(bias[0], Z) if bias else None)
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


def _options(config: Any, n: int) -> dict[str, Any]:
    """What the configurations of all layers say."""
    each = [config] if isinstance(config, Mapping) else config
    ok = type(each) in (list, tuple) and all(isinstance(one, Mapping) for one in each)
    expected = "layer.get_config(), or a list of them"
    check(ok, "config", expected, type(config).__name__)
    check(len(each) == n, "config", f"one for each of {n} layers", len(each))
    found = [_of_layer(one, f"config[{i}]") for i, one in enumerate(each)]
    for i, one in enumerate(found):
        check(one == found[0], f"config[{i}]", f"as the first, {found[0]}", one)
    return found[0]


def _of_layer(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    if "merge_mode" in config:
        both = [config["layer"], config.get("backward_layer") or config["layer"]]
        inner = [_of_layer(layer["config"], name) for layer in both]
        own = [one | {"go_backwards": False} for one in inner]
        check(own[0] == own[1], name, "two directions that agree", own)
        first = inner[0]["go_backwards"]
        check(not first, name, "a first layer that goes forwards", "go_backwards")
        return own[0] | {"merge_mode": config["merge_mode"]}
    return {
        "activation": config.get("activation", "tanh"),
        "recurrent": config.get("recurrent_activation", "sigmoid"),
        "reset_after": config.get("reset_after"),
        "go_backwards": config.get("go_backwards", False),
        "merge_mode": "concat",
    }


def to_keras(network: Network) -> list[list[Any]]:
    """The weights of recurrent layers of Keras.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, of `gru_cell` with
            `reset_after=False`, or of cells that differ from these in their
            activations, with which the layers have to be made.

    Returns:
        For each layer a list of NumPy arrays, for `layer.set_weights`: two or three, or
        four or six for a `Bidirectional`. Without biases it is a layer that is made
        with `use_bias=False`. Two biases where Keras has one are added.

    Raises:
        ValueError: if Keras has no such layers, with the reason.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.GRU)
        >>> (weights,) = jaxseq.convert.to_keras(network)
        >>> [a.shape for a in weights]
        [(3, 24), (8, 24), (2, 24)]
    """
    how: dict[str, Any] = {"free": True, "before": None}
    gates, layers = taken_apart(network, "Keras", CELLS, **how)
    reason = "False for several layers, for each would turn its inputs around"
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
        both = b, of_all_gates(weights)
        none = zeros(weights, w_x.shape[1])
        bias = [np.stack([none if a is None else a for a in both])]
    return [reordered(a, GRU_ORDER) for a in (w_x, w_h, *bias)]
