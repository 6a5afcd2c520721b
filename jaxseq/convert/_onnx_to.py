"""A model of ONNX that runs layers: one node RNN, LSTM or GRU for each of them."""

from collections.abc import Sequence
from typing import Any

from jaxseq._base.check import check, check_choice, check_flag, is_whole
from jaxseq.convert._names import check_shape
from jaxseq.convert._network import MERGES, Network, directions
from jaxseq.convert._onnx_ops import arrays, kind_of, told


def to_onnx(
    network: Network,
    *,
    embedding: Any = None,
    dense: tuple[Any, Any] | None = None,
    lengths: bool = False,
    state: bool = False,
    opset: int = 17,
) -> Any:
    """Converts a network into an ONNX model that computes the same.

    Args:
        network: layers of `jaxseq.RNN`, `GRU` or `LSTM`, or of a cell of `rnn_cell`,
            `gru_cell` or `lstm_cell` with activations that ONNX has, such as those of
            `jaxseq.activation`.
        embedding: a table `(V, D)` of embeddings, for a model that takes tokens. If
            None, the model takes the inputs of the network.
        dense: `(w, b)`, a linear layer on the outputs, with `w` `(H, K)` and `b`
            `(K,)` or None; no such layer if None.
        lengths: whether the model takes lengths.
        state: whether the model takes initial states; if not, they are zeros.
        opset: the version of ONNX's operators, from 14.

    Returns:
        An `onnx.ModelProto`, for `onnx.save`. The batch size B and the number of steps
        T are not fixed. The inputs of the model are:

        - `x` `(B, T, D)`, or with an embedding `tokens` `(B, T)`, int64;
        - with `lengths`, `lengths` `(B,)`, int32;
        - with `state`, for each layer i `initial_h_i` and, of an LSTM, `initial_c_i`,
          `(N, B, H)` for N directions.

        The outputs are `y`, `(B, T, H)` as those of the network or `(B, T, K)` of the
        linear layer, and for each layer `final_h_i` and `final_c_i`, in the shapes of
        the initial ones. If a layer has one of two biases, the other one is zeros.

    Raises:
        ValueError: if ONNX has no such operator, or if a shape or dtype is wrong; the
            message says why.

    ONNX Runtime runs these operators in float32 and float16, not in float64. Its final
    state of a sequence of length 0 is zero; in jaxseq it is the initial state.

    For cells that ONNX has no operator for, the package jax2onnx can turn the steps
    into a graph, with a loop over time. As of version 0.17, it needs fixed sizes,
    layers that run forward with `implementation="scan"`, and a function that has been
    called before, since it replaces functions of `jax.numpy` while it traces:

        run = functools.partial(jaxseq.cell, cell.update, params, zeros=8)
        f = lambda x: run(x, implementation="scan")
        y = f(x)
        model = jax2onnx.to_onnx(f, [x.shape])

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> network = jaxseq.convert.Network((params,), jaxseq.LSTM)
        >>> model = jaxseq.convert.to_onnx(network, lengths=True)
        >>> [own.name for own in model.graph.input]
        ['x', 'lengths']
        >>> [own.name for own in model.graph.output]
        ['y', 'final_h_0', 'final_c_0']
    """
    import numpy as np
    import onnx

    newest = onnx.defs.onnx_opset_version()
    ok = is_whole(opset) and 14 <= opset <= newest
    check(ok, "opset", f"a version from 14 to {newest}", repr(opset))
    lengths, state = check_flag(lengths, "lengths"), check_flag(state, "state")
    layers = directions(network)
    check_choice(network.merge, "network.merge", MERGES[:-1])
    dtype = np.asarray(layers[0][0].w_x).dtype
    graph = Graph()
    if embedding is None:
        width = layers[0][0].w_x.shape[0]
        x = graph.input("x", dtype, "batch", "time", width)
    else:
        table = _array("embedding", embedding, dtype, None, None)
        x = graph.input("tokens", np.int64, "batch", "time")
        x = graph.node("Gather", [graph.constant("embedding", table), x], "embedded")
        width = table.shape[1]
    given = graph.input("lengths", np.int32, "batch") if lengths else ""
    x = graph.node("Transpose", [x], "x_by_time", perm=[1, 0, 2])
    finals = []
    for i in range(len(layers)):
        x, width, ends = _layer(graph, network, i, x, width, given, state)
        finals += ends
    by_time = x
    if dense is None:
        graph.node("Transpose", [by_time], "y", perm=[1, 0, 2])
    else:
        x = graph.node("Transpose", [by_time], "outputs", perm=[1, 0, 2])
        width = _dense(graph, dense, x, width, dtype)
    graph.output("y", dtype, "batch", "time", width)
    for name, *shape in finals:
        graph.output(name, dtype, *shape)
    return graph.model(opset)


class Graph:
    """What a graph has so far."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[str, Any] = {}

    def input(self, name: str, dtype: Any, *shape: str | int) -> str:
        """An input of the model, with names for sizes that are known when it runs."""
        self.inputs.append(_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: Any, *shape: str | int) -> None:
        self.outputs.append(_info(name, dtype, shape))

    def constant(self, name: str, a: Any) -> str:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(a, name)
        return name

    def node(
        self, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any
    ) -> str:
        """A node, and the name of its first output."""
        from onnx import helper

        found = helper.make_node(op, inputs, outputs, **attributes)
        self.nodes.append(found)
        return outputs[0]

    def model(self, opset: int) -> Any:
        """The whole, for the oldest runtimes that have this opset."""
        from onnx import helper

        constants = list(self.constants.values())
        graph = helper.make_graph(
            self.nodes, "jaxseq", self.inputs, self.outputs, constants
        )
        opsets = [helper.make_opsetid("", opset)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=version, producer_name="jaxseq"
        )


def _layer(
    graph: Graph, network: Network, i: int, x: str, D: int, lengths: str, state: bool
) -> tuple[str, int, list[Any]]:
    """The nodes of a layer: its outputs, how wide they are, and its final states."""
    import numpy as np

    both, name = directions(network)[i], f"network.layers[{i}]"
    N, dtype = len(both), np.asarray(both[0].w_x).dtype
    ok = dtype.name in ("float16", "float32", "float64")
    check(ok, "network", "float16, float32 or float64, as ONNX has them", dtype)
    cells = network.cells[:N]
    kind = kind_of(cells)
    found = arrays(kind, both, name)
    got, H = found["W"].shape[-1], found["R"].shape[-1]
    check(got == D, name, f"inputs {D} wide", got)
    weights = {key: graph.constant(f"{key}_{i}", a) for key, a in found.items()}
    parts = ("h", "c") if kind == "LSTM" else ("h",)
    firsts = [f"initial_{part}_{i}" if state else "" for part in parts]
    for first in filter(None, firsts):
        graph.input(first, dtype, N, "batch", H)
    inputs = [x, weights["W"], weights["R"], weights.get("B", ""), lengths, *firsts]
    inputs += [weights["P"]] if "P" in weights else []
    finals = [f"final_{part}_{i}" for part in parts]
    one_way = "reverse" if network.reverse else "forward"
    y = graph.node(
        kind,
        inputs,
        f"Y_{i}",
        *finals,
        name=f"{kind}_{i}",
        hidden_size=H,
        direction="bidirectional" if N == 2 else one_way,
        **told(kind, cells, both, name),
    )
    y, width = _merged(graph, y, i, N, H, network.merge, dtype)
    return y, width, [(final, N, "batch", H) for final in finals]


def _merged(
    graph: Graph, y: str, i: int, N: int, H: int, merge: str | None, dtype: Any
) -> tuple[str, int]:
    """Outputs `(T, N, B, H)` as `(T, B, N H)`, or their sum or mean."""
    import numpy as np

    if N == 2 and merge == "concat":
        y = graph.node("Transpose", [y], f"pairs_{i}", perm=[0, 2, 1, 3])
        shape = graph.constant("by_time", np.array([0, 0, -1]))
        return graph.node("Reshape", [y, shape], f"outputs_{i}"), 2 * H
    axis = graph.constant("directions", np.array([1]))
    y = graph.node("ReduceSum", [y, axis], f"outputs_{i}", keepdims=0)
    if N == 2 and merge == "mean":
        half = graph.constant("half", np.array(0.5, dtype))
        y = graph.node("Mul", [y, half], f"means_{i}")
    return y, H


def _dense(graph: Graph, dense: Any, x: str, width: int, dtype: Any) -> int:
    """The linear layer on the outputs, and how wide its own are."""
    ok = type(dense) in (tuple, list) and len(dense) == 2
    check(ok, "dense", "a pair (w, b)", type(dense).__name__)
    w = _array("dense[0]", dense[0], dtype, width, None)
    inputs = [x, graph.constant("dense_w", w)]
    if dense[1] is None:
        graph.node("MatMul", inputs, "y")
    else:
        b = _array("dense[1]", dense[1], dtype, w.shape[1])
        y = graph.node("MatMul", inputs, "products")
        graph.node("Add", [y, graph.constant("dense_b", b)], "y")
    return w.shape[1]


def _array(name: str, a: Any, dtype: Any, *shape: int | None) -> Any:
    import numpy as np

    a = np.asarray(a)
    check(a.dtype == dtype, name, f"dtype {dtype}", a.dtype)
    check_shape(name, a.shape, shape)
    return a


def _info(name: str, dtype: Any, shape: Sequence[str | int]) -> Any:
    import numpy as np
    from onnx import helper

    own = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, own, shape)
