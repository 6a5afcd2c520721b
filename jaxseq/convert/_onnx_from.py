"""Weights of ONNX: the nodes RNN, LSTM and GRU of a model.

ONNX's matrices are `(directions, out, in)`, with the gates one under the other, in the
order i, o, f, c of an LSTM and z, r, h of a GRU; its peepholes are in the order i, o,
f. The two biases, Wb and Rb, are kept apart, so that weights come back as they were.

https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from os import PathLike
from typing import Any, NamedTuple

from jaxseq import Cell, CellParams, LSTMExtra, LSTMState, Peepholes, ResetBefore
from jaxseq._base.check import check, check_choice
from jaxseq.convert._common import PLAIN
from jaxseq.convert._gates import blocks, reordered, side_by_side
from jaxseq.convert._names import check_float, check_shape
from jaxseq.convert._network import Network
from jaxseq.convert._onnx_graph import Node, load, nodes
from jaxseq.convert._onnx_ops import KINDS, Function, functions, functions_of


class ONNXLayer(NamedTuple):
    """A node of an ONNX model, for `layer.network(x, layer.state, lengths=...)`.

    Fields:
        network: its weights, as a network of one layer.
        state: its initial state, in the form that the network takes, if the model has
            it as constants. None if it has none, or computes it from its inputs.
        lengths: its `sequence_lens`, `(B,)`, if they are a constant; else None.
    """

    network: Network
    state: tuple[Any, ...] | None
    lengths: Any


def from_onnx(
    model: str | PathLike[str] | bytes | Any, *, name: str | None = None
) -> dict[str, ONNXLayer]:
    """Converts the recurrent layers of an ONNX model.

    Args:
        model: a path, the bytes of a file, or an `onnx.ModelProto`; of opset 7 or
            later. A path is needed if the weights are in files of their own. The
            weights W, R, B and P have to be initializers, or computed from constants.
        name: the name of a single node to convert; all nodes if None.

    Returns:
        A dict with an `ONNXLayer` for each node RNN, LSTM or GRU, in the order of the
        graph. Its key is the node's name, or the name of its first output if it has no
        name of its own; with a number, such as "name_1", if another node has that
        already, as in the branches of an `If`. All attributes of these operators are
        supported. Weights are NumPy arrays: `RNNParams`, `LSTMParams` or `GRUParams`
        where the node is a plain cell, else `CellParams` for a cell of `rnn_cell`,
        `lstm_cell` or `gru_cell`. Both biases are kept, the second one as `b_h`, or as
        `b_hn` `(3H,)` of a GRU.

    Raises:
        ValueError: if there is no such node, if its weights are not constants, are in
            another file that is not there, or have a wrong shape or dtype, if an
            activation is unknown, or if `clip` is not above 0.
        OSError: if the file cannot be read.

    A network takes and returns what its node does, in another layout:

    - X is `(T, B, D)`, or `(B, T, D)` for `layout` 1. A network takes the latter.
    - `sequence_lens` are `lengths`.
    - `initial_h` and `initial_c` are `(N, B, H)` for N directions (`(B, N, H)` for
      `layout` 1). A network takes `(h,)` or `(LSTMState(h, c),)`, or a pair of such
      states for two directions, `((forward, backward),)`. Y_h and Y_c correspond to
      the returned state in the same way.
    - Y is `(T, N, B, H)` (`(B, T, N, H)` for `layout` 1). A network returns
      `(B, T, N H)`, one direction after the other.

    Where the standard is silent, this follows ONNX Runtime: `clip` bounds the inputs
    of the activations of gates and candidate, but not the cell state on its way to the
    output, and Y is 0 past the end of a sequence. There are two exceptions:

    - The final state of a sequence of length 0 is its initial state. In ONNX Runtime
      it is zero.
    - "Affine", "ScaledTanh" and "ThresholdedRelu" without α or β take the defaults of
      `jaxseq.activation`. In ONNX Runtime they are 0.

    Example:
        >>> below, above = jax.random.split(jax.random.key(0))
        >>> params = jaxseq.lstm_init(below, 3, 8), jaxseq.lstm_init(above, 8, 8)
        >>> model = jaxseq.convert.to_onnx(jaxseq.convert.Network(params, jaxseq.LSTM))
        >>> layers = jaxseq.convert.from_onnx(model)
        >>> (state,), y = layers["LSTM_0"].network(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)

        Layers that are stacked, as one network:

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
    shape = _, Z, H = node.weights("R", n, None, None).shape
    said = node.attribute("hidden_size", H)
    if Z != len(kind.ours) * H:
        check_shape(f"{node.name}.R", shape, (n, len(kind.ours) * said, said))
    check(said == H, f"{node.name}.hidden_size", f"{H}, as of R", said)
    Z = len(kind.ours) * H
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
    check_float(name, got)
    check(got == dtype, name, f"dtype {dtype}", got)


def _functions(node: Node, n: int) -> list[list[Function]]:
    """The activations of each direction."""
    default = functions_of(node.kind, [KINDS[node.kind].cell])
    names = node.attribute("activations", [])
    if not names:
        return [default] * n
    k, key = len(default), f"{node.name}.activations"
    if node.kind == "RNN":  # whose default is two, even of one direction
        names = names[:n]
    check(len(names) == n * k, key, f"{n * k} names", len(names))
    alpha, beta = (node.attribute(f"activation_{a}", []) for a in ("alpha", "beta"))
    each = functions(names, alpha, beta, key)
    return [each[i * k : (i + 1) * k] for i in range(n)]


def _direction(
    node: Node, each: list[Function], w: Any, r: Any, biases: Any, p: Any
) -> tuple[Cell, Any]:
    """The cell and the weights of one direction."""
    kind = KINDS[node.kind]
    w_x, w_h = reordered(w.T, kind.ours), reordered(r.T, kind.ours)
    two = [None, None] if biases is None else blocks(biases, 2)
    b, b_h = (None if a is None else reordered(a, kind.ours) for a in two)
    clip = node.attribute("clip", None)
    ok = clip is None or clip > 0
    check(ok, f"{node.name}.clip", "a number above 0", clip)
    options: dict[str, Any] = dict(zip(kind.functions, each, strict=True))
    options["clip"], extra = clip, b_h
    if node.kind == "LSTM":
        options["coupled"] = bool(node.attribute("input_forget", 0))
        if p is not None:
            options["peepholes"] = True
            p = Peepholes(*blocks(reordered(p, (0, 2, 1)), 3))
        extra = None if b_h is None and p is None else LSTMExtra(b_h, p)
    if node.kind == "GRU" and not node.attribute("linear_before_reset", 0):
        options["reset_after"] = False
        *gates, candidate = blocks(w_h, 3)
        w_h = ResetBefore(side_by_side(gates), candidate)
    cell = kind.make(**options)
    plain = cell.update == kind.cell.update and p is None
    if plain and not isinstance(w_h, ResetBefore):
        _, params = PLAIN[len(kind.ours)]
        return kind.cell, params(w_x, w_h, b, b_h)
    return cell, CellParams(w_x, w_h, b, extra)


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
