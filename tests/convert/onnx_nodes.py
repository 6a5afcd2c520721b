"""Recurrent nodes of ONNX at random, and what they give."""

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

B, T, D, H = 3, 5, 2, 4
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def arrays(kind, n, given, seed=0, dtype=np.float32):
    """The inputs of a node of n directions, those that are given, by name."""
    rng, Z = np.random.default_rng(seed), GATES[kind] * H
    shapes = {
        "X": (T, B, D),
        "W": (n, Z, D),
        "R": (n, Z, H),
        "B": (n, 2 * Z),
        "initial_h": (n, B, H),
        "initial_c": (n, B, H),
        "P": (n, 3 * H),
    }
    drawn = {k: rng.uniform(-0.5, 0.5, shape) for k, shape in shapes.items()}
    found = {k: a.astype(dtype) for k, a in drawn.items()}
    found["sequence_lens"] = np.array([5, 1, 3], np.int32)
    return {k: found[k] for k in INPUTS if k in ("X", "W", "R", *given)}


def model(kind, inputs, opset=17, dynamic=("X",), **attributes):
    """A model of one node, whose inputs are constants but for the dynamic ones."""
    outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    names = [name if name in inputs else "" for name in INPUTS]
    names = names[: max(i for i, name in enumerate(names) if name) + 1]
    size = {"hidden_size": inputs["R"].shape[-1]}
    node = helper.make_node(kind, names, outputs, "the node", **size | attributes)
    element = helper.np_dtype_to_tensor_dtype(inputs["X"].dtype)
    types = {"sequence_lens": TensorProto.INT32}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one node",
        [info(k, types.get(k, element), inputs[k].shape) for k in dynamic],
        [info(k, element, None) for k in outputs],
        [numpy_helper.from_array(a, k) for k, a in inputs.items() if k not in dynamic],
    )
    opsets = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def run(proto, feeds):
    """What ONNX Runtime makes of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    only = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), **only)
    names = [own.name for own in session.get_inputs()]
    return session.run(None, {name: feeds[name] for name in names})


def ours(layer, x, kind, state=None, lengths=None):
    """The same of a network, in the layout of ONNX."""
    state = layer.state if state is None else state
    lengths = layer.lengths if lengths is None else lengths
    end, y = layer.network(x.swapaxes(0, 1), state, lengths=lengths)
    parts = [np.asarray(a) for a in jax.tree.leaves(end)]
    each = len(parts) // (2 if kind == "LSTM" else 1)
    y = np.asarray(y).reshape(*y.shape[:2], each, -1).transpose(1, 2, 0, 3)
    if kind == "LSTM":
        return [y, np.stack(parts[::2]), np.stack(parts[1::2])]
    return [y, np.stack(parts)]


def close(got, want, atol=2e-6):
    """Up to so much of 1, or of the largest value where that is more."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        most = atol * max(1, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=most)


def checked(proto):
    onnx.checker.check_model(proto, full_check=True)
    return proto
