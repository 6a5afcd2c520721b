"""Weights of ONNX: the nodes RNN, LSTM and GRU of a model.

ONNX's matrices are `(directions, out, in)`, with the gates one under the other, in the
order i, o, f, c of an LSTM and z, r, h of a GRU; its peepholes are in the order i, o,
f. The two biases, Wb and Rb, are kept apart, so that weights come back as they were.

https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from os import PathLike
from typing import Any, NamedTuple

import jaxseq
from jaxseq import (
    Cell,
    CellParams,
    GRUParams,
    LSTMExtra,
    LSTMParams,
    LSTMState,
    Peepholes,
    ResetBefore,
    RNNParams,
)
from jaxseq._base.check import check, check_choice
from jaxseq.convert._network import Network
from jaxseq.convert._onnx_graph import Node, load, nodes
from jaxseq.convert._onnx_kinds import KINDS, Function, blocks, functions


class ONNXLayer(NamedTuple):
    """A node of an ONNX model, for `layer.network(x, layer.state, lengths=...)`.

    Fields:
        network: its weights, as a network of one layer.
        state: its initial state, as that network takes it, if the model has it as
            constants; None if there is none, or the model makes it of its inputs.
        lengths: its `sequence_lens`, `(B,)`, if they are a constant; else None.
    """

    network: Network
    state: tuple[Any, ...] | None
    lengths: Any


def from_onnx(
    model: str | PathLike[str] | bytes | Any, name: str | None = None
) -> dict[str, ONNXLayer]:
    """The recurrent layers of an ONNX model.

    Args:
        model: a path, the bytes of a file, or an `onnx.ModelProto`; of opset 7 or
            later. The weights W, R, B and P are initializers, or computed from
            constants.
        name: of the one node to read; None for all of them.

    Returns:
        A dict with an `ONNXLayer` for each node RNN, LSTM and GRU, in the order of the
        graph, by the node's name, or that of its first output where it has no name of
        its own. All attributes of these operators are supported. Weights are NumPy
        arrays: `RNNParams`, `LSTMParams` or `GRUParams` where the node is a plain cell,
        else `CellParams` for a cell of `rnn_cell`, `lstm_cell` or `gru_cell`. Both
        biases are kept, the second as `b_h`, that of a GRU as `b_hn` `(3H,)`.

    Raises:
        ValueError: if there is no such node, its weights are not constants or of the
            wrong shape, an activation is unknown, or `clip` is not above 0.

    Inputs and outputs of a node and of its network:

    - X is `(T, B, D)`, or `(B, T, D)` for `layout` 1; a network takes the latter.
    - `sequence_lens` are `lengths`.
    - `initial_h` and `initial_c` `(N, B, H)` of N directions (`(B, N, H)` for `layout`
      1) are `(h,)`, `(LSTMState(h, c),)`, or for both directions `((forward,
      backward),)`. Y_h and Y_c are the state that is returned, likewise.
    - Y `(T, N, B, H)` (`(B, T, N, H)`) is y `(B, T, N H)`, one direction after the
      other.

    Where the standard is silent, this follows ONNX Runtime: `clip` bounds what the
    activations of gates and the candidate are given, not the cell state on its way to
    the output, and Y is 0 past a length. It does not in two things. The final state of
    a sequence of length 0 is its initial state; in ONNX Runtime it is zero. And where
    the model gives "Affine", "ScaledTanh" or "ThresholdedRelu" no α or β, these are
    those of `jaxseq.activation`; in ONNX Runtime they are 0.

    Example:
        >>> below, above = jax.random.split(jax.random.key(0))
        >>> params = jaxseq.lstm_init(below, 3, 8), jaxseq.lstm_init(above, 8, 8)
        >>> model = jaxseq.convert.to_onnx(jaxseq.convert.Network(params, jaxseq.LSTM))
        >>> layers = jaxseq.convert.from_onnx(model)
        >>> (state,), y = layers["LSTM_0"].network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)

        Layers that stand one on top of the other, as one network:

        >>> params = tuple(layer.network.layers[0] for layer in layers.values())
        >>> network = jaxseq.convert.Network(params, jaxseq.LSTM)
    """
    found = nodes(load(model), name)
    return {node.name: _layer(node) for node in found}


def _layer(node: Node) -> ONNXLayer:
    kind = KINDS[node.kind]
    direction = node.attribute("direction", "forward")
    directions = "forward", "reverse", "bidirectional"
    check_choice(direction, f"{node.name}.direction", directions)
    n = 2 if direction == "bidirectional" else 1
    _, _, H = node.weights("R", n, None, None).shape
    said = node.attribute("hidden_size", H)
    check(said == H, f"{node.name}.hidden_size", f"{H}, as of R", said)
    Z = kind.gates * H
    shapes = {"W": (n, Z, None), "R": (n, Z, H), "B": (n, 2 * Z), "P": (n, 3 * H)}
    arrays: list[Any] = [
        node.weights(name, *shape) if name in "WR" or node.has(name) else None
        for name, shape in shapes.items()
    ]
    for name, a in zip(shapes, arrays, strict=True):
        if a is not None:
            _check_dtype(a.dtype, f"{node.name}.{name}", arrays[0].dtype)
    each = _functions(node, n)
    both = [
        _direction(node, each[k], *(None if a is None else a[k] for a in arrays))
        for k in range(n)
    ]
    cells, params = zip(*both, strict=True)
    layer = params if n == 2 else params[0]
    cell = cells[0] if len(set(cells)) == 1 else cells
    network = Network((layer,), cell, reverse=direction == "reverse")
    lengths = node.constant("sequence_lens") if node.has("sequence_lens") else None
    return ONNXLayer(network, _state(node, n, H, arrays[0].dtype), lengths)


def _check_dtype(got: Any, name: str, dtype: Any) -> None:
    check(got == dtype, name, f"dtype {dtype}", got)


def _functions(node: Node, n: int) -> list[list[Function]]:
    """The activations of each direction."""
    default = KINDS[node.kind].activations
    names = node.attribute("activations", [])
    if not names:
        return [list(default)] * n
    k, key = len(default), f"{node.name}.activations"
    if node.kind == "RNN":  # whose default is two, even of one direction
        names = names[:n]
    check(len(names) == n * k, key, f"{n * k} names", len(names))
    numbers = (node.attribute(f"activation_{a}", []) for a in ("alpha", "beta"))
    each = functions(names, *numbers)
    return [each[i * k : (i + 1) * k] for i in range(n)]


def _direction(
    node: Node, each: list[Function], w: Any, r: Any, biases: Any, p: Any
) -> tuple[Cell, Any]:
    """The cell and the weights of one direction."""
    import numpy as np

    order = KINDS[node.kind].ours
    w_x, w_h = blocks(w, order).T, blocks(r, order).T
    b: Any = None
    b_h: Any = None
    if biases is not None:
        b, b_h = (blocks(a, order) for a in np.split(biases, 2))
    clip = node.attribute("clip", None)
    expected = "a number above 0"
    check(clip is None or clip > 0, f"{node.name}.clip", expected, clip)
    plain = clip is None and tuple(each) == KINDS[node.kind].activations
    if node.kind == "RNN":
        if plain:
            return jaxseq.RNN, RNNParams(w_x, w_h, b, b_h)
        cell = jaxseq.rnn_cell(activation=each[0], clip=clip)
        return cell, CellParams(w_x, w_h, b, b_h)
    if node.kind == "LSTM":
        coupled = bool(node.attribute("input_forget", 0))
        if plain and not coupled and p is None:
            return jaxseq.LSTM, LSTMParams(w_x, w_h, b, b_h)
        peepholes = (
            None if p is None else Peepholes(*blocks(p, (0, 2, 1)).reshape(3, -1))
        )
        some = b_h is not None or p is not None
        extra = LSTMExtra(b_h, peepholes) if some else None
        gate, candidate, output = each
        cell = jaxseq.lstm_cell(
            gate=gate,
            candidate=candidate,
            output=output,
            clip=clip,
            coupled=coupled,
            peepholes=p is not None,
        )
        return cell, CellParams(w_x, w_h, b, extra)
    after = bool(node.attribute("linear_before_reset", 0))
    if plain and after:
        return jaxseq.GRU, GRUParams(w_x, w_h, b, b_h)
    gate, candidate = each
    cell = jaxseq.gru_cell(gate=gate, candidate=candidate, clip=clip, reset_after=after)
    H = w_h.shape[0]
    matrices = w_h if after else ResetBefore(w_h[:, : 2 * H], w_h[:, 2 * H :])
    return cell, CellParams(w_x, matrices, b, b_h)


def _state(node: Node, n: int, H: int, dtype: Any) -> tuple[Any, ...] | None:
    """The initial state, if it is there and a constant."""
    import numpy as np

    given = [name for name in ("initial_h", "initial_c") if node.has(name)]
    if not given or any(node.constant(name) is None for name in given):
        return None
    first = bool(node.attribute("layout", 0))
    shape = (None, n, H) if first else (n, None, H)
    found = {name: node.weights(name, *shape) for name in given}
    for name, a in found.items():
        _check_dtype(a.dtype, f"{node.name}.{name}", dtype)
    # that of the engine for 16 bits
    as_ours = lambda a: a.astype(np.promote_types(np.float32, a.dtype))
    parts = [as_ours(a.swapaxes(0, 1) if first else a) for a in found.values()]
    if node.kind == "LSTM":
        zeros = np.zeros_like(parts[0])
        named = dict(zip(given, parts, strict=True))
        h, c = (named.get(name, zeros) for name in ("initial_h", "initial_c"))
        each: list[Any] = [LSTMState(*own) for own in zip(h, c, strict=True)]
    else:
        each = list(parts[0])
    return (tuple(each),) if n == 2 else (each[0],)
