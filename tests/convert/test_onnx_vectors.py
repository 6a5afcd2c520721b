"""The inputs and outputs with which ONNX Runtime tests its RNN, GRU and LSTM.

The numbers in onnx_vectors.json are those of rnn_op_test.cc, deep_cpu_gru_op_test.cc
and deep_cpu_lstm_op_test.cc in onnxruntime/test/providers/cpu/rnn of ONNX Runtime
(Microsoft, 2018, MIT License), by the names of the tests, with a number where a test
has two of them. They are in the order of ONNX's axes. SharedPrepackedWeights is left
out, whose numbers are those of ForwardSimpleWeightsNoBiasTwoRows.

https://github.com/microsoft/onnxruntime
"""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from jaxseq.convert import from_onnx
from tests.convert.onnx_nodes import GATES, INPUTS, arrays, close, model, ours, run

pytest.importorskip("onnx")

READ = json.loads(Path(__file__).with_name("onnx_vectors.json").read_text("utf-8"))
TOLERANCES = {
    # published with five digits
    "LSTMTest.ONNXRuntime_TestLSTMBatchReallocation/2": 5e-6,
    # One number in both, -0.04350187, is not what ONNX Runtime gives, -0.0435632. Its
    # own tests allow 1e-4.
    "LSTMTest.ONNXRuntime_TestLSTMShorterSeqInMiddle": 1e-4,
    "LSTMTest.ONNXRuntime_TestLSTMZeroSeqInMiddle": 1e-4,
}


def filled(a, shape):
    """An array of these numbers, or of those by this name, over and over.

    A list of lists has one for each gate. Diagonals are those of each gate's matrix.
    """
    a = READ["arrays"][a] if isinstance(a, str) else a
    if isinstance(a, dict):
        a = [np.diag(np.resize(own, shape[-1])).ravel() for own in a["diagonals"]]
    if not isinstance(a[0], (float, int)):
        size = math.prod(shape[1:]) // len(a)
        a = np.concatenate([np.resize(own, size) for own in a])
    assert math.prod(shape) % len(a) == 0
    return np.resize(a, shape).astype(np.float32)


def read(name):
    """Of a test the kind of node, its attributes, its inputs, and some outputs."""
    vector, kind = READ["vectors"][name], name.partition("Test.")[0]
    T, B, D, H = vector["sizes"]
    n = 2 if vector["attributes"].get("direction") == "bidirectional" else 1
    Z = GATES[kind] * H
    shapes = {
        "X": (T, B, D),
        "W": (n, Z, D),
        "R": (n, Z, H),
        "B": (n, 2 * Z),
        "initial_h": (n, B, H),
        "initial_c": (n, B, H),
        "P": (n, 3 * H),
    }
    inputs = {k: filled(vector[k], shapes[k]) for k in shapes if k in vector}
    if "sequence_lens" in vector:
        inputs["sequence_lens"] = np.array(vector["sequence_lens"], np.int32)
    inputs = {k: inputs[k] for k in INPUTS if k in inputs}
    ends = {"Y": (T, n, B, H), "Y_h": (n, B, H), "Y_c": (n, B, H)}
    outputs = {k: np.float32(vector[k]).reshape(ends[k]) for k in ends if k in vector}
    return kind, vector["attributes"], inputs, outputs


@pytest.mark.every(5)
@pytest.mark.parametrize("name", READ["vectors"])
def test_published_numbers(name):
    kind, attributes, inputs, outputs = read(name)
    proto = model(kind, inputs, **attributes)
    (layer,) = from_onnx(proto).values()
    found = ours(layer, inputs["X"], kind)
    every = zip(("Y", "Y_h", "Y_c"), found, strict=False)
    some = [a for k, a in every if k in outputs]
    close(some, outputs.values(), TOLERANCES.get(name, 2e-6))
    if find_spec("onnxruntime"):
        close(found, run(proto, inputs))


@pytest.mark.parametrize(
    "lengths, message",
    [([5], r"lengths: expected shape \(3,\), .* got \(1,\)"), ([0, 6, 1], "got 6")],
)
def test_invalid_sequence_lens(lengths, message):
    """RNN_invalid_sequence_lens, whose model fails when it runs."""
    inputs = arrays("RNN", 1, ["B", "sequence_lens", "initial_h"])
    inputs["sequence_lens"] = np.array(lengths, np.int32)
    (layer,) = from_onnx(model("RNN", inputs)).values()
    with pytest.raises(ValueError, match=message):
        ours(layer, inputs["X"], "RNN")


def test_invalid_activation():
    """RNN_with_invalid_activation_load_failure."""
    proto = model("RNN", arrays("RNN", 1, []), activations=["Invalid_activation"])
    with pytest.raises(ValueError, match="got 'Invalid_activation'"):
        from_onnx(proto)
