"""Nodes of ONNX, run by ONNX Runtime, by its reference, and by jaxseq."""

import random
from importlib import import_module
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq.convert import from_onnx
from tests.convert.onnx_nodes import B, H, arrays, close, model, ours, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DIRECTIONS = "forward", "reverse", "bidirectional"
# of each activation how many numbers it has
NUMBERS = {
    "Affine": 2,
    "Elu": 1,
    "HardSigmoid": 2,
    "LeakyRelu": 1,
    "Relu": 0,
    "ScaledTanh": 2,
    "Sigmoid": 0,
    "Softplus": 0,
    "Softsign": 0,
    "Tanh": 0,
    "ThresholdedRelu": 1,
}
EACH = {"RNN": 1, "LSTM": 3, "GRU": 2}


def activations(kind, n, rng):
    """Functions for all gates of n directions, with numbers for those that have any."""
    names = [rng.choice([*NUMBERS]) for _ in range(n * EACH[kind])]
    found = {"activations": names}
    for k, key in enumerate(("activation_alpha", "activation_beta")):
        own = [name for name in names if NUMBERS[name] > k]
        found[key] = [round(rng.uniform(0.1, 0.6), 2) for _ in own]
    if kind != "RNN":
        found["activations"] = [rng.choice([name, name.lower()]) for name in names]
    return {key: a for key, a in found.items() if a}


def cases():
    """Every combination of what a node can be told, in a random order."""
    found = []
    for kind in EACH:
        own = {"LSTM": "input_forget", "GRU": "linear_before_reset"}.get(kind)
        optional = ["B", "sequence_lens", "initial_h"]
        optional += ["initial_c", "P"] if kind == "LSTM" else []
        flags = [False, True]
        rest = product(DIRECTIONS, flags, flags, flags, *[flags] * len(optional))
        for direction, flag, clip, other, *given in rest:
            if flag and own is None:
                continue
            how = {"direction": direction} | ({own: int(flag)} if own else {})
            how |= {"clip": 0.35} if clip else {}
            names = [k for k, is_given in zip(optional, given, strict=True) if is_given]
            found.append((kind, how, other, tuple(names)))
    random.Random(0).shuffle(found)
    return found


@pytest.mark.every(16)
@pytest.mark.parametrize("seed, case", [*enumerate(cases())])
def test_as_in_onnx_runtime(seed, case):
    kind, how, other, given = case
    n = 2 if how["direction"] == "bidirectional" else 1
    if other:
        how = how | activations(kind, n, random.Random(seed))
    inputs = arrays(kind, n, given, seed)
    proto = model(kind, inputs, **how)
    (layer,) = from_onnx(proto).values()
    close(ours(layer, inputs["X"], kind), run(proto, inputs))


@pytest.mark.parametrize("opset", [7, 11, 14, 22])
@pytest.mark.parametrize("kind", EACH)
def test_every_opset(kind, opset):
    inputs = arrays(kind, 1, ["B"])
    proto = model(kind, inputs, opset)
    (layer,) = from_onnx(proto).values()
    close(ours(layer, inputs["X"], kind), run(proto, inputs))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_not_given(name):
    inputs = arrays("GRU", 1, ["B"])
    how = {"activations": ["Sigmoid", name]}
    # the standard refers to the defaults of operators, of which two are no more, and
    # ONNX Runtime takes 0 where they have 1
    said = {"Affine": {"activation_alpha": [1.0]}}
    said |= {"ScaledTanh": {"activation_alpha": [1.0], "activation_beta": [1.0]}}
    said |= {"ThresholdedRelu": {"activation_alpha": [1.0]}}
    (layer,) = from_onnx(model("GRU", inputs, **how)).values()
    want = run(model("GRU", inputs, **how, **said.get(name, {})), inputs)
    close(ours(layer, inputs["X"], "GRU"), want)


def test_plain_cells():
    for kind, cell, params in (
        ("RNN", jaxseq.RNN, jaxseq.RNNParams),
        ("LSTM", jaxseq.LSTM, jaxseq.LSTMParams),
        ("GRU", jaxseq.GRU, jaxseq.GRUParams),
    ):
        how = {"linear_before_reset": 1} if kind == "GRU" else {}
        proto = model(kind, arrays(kind, 2, ["B"]), direction="bidirectional", **how)
        network = from_onnx(proto)["the node"].network
        assert network.cell == cell
        assert [type(own) for own in network.layers[0]] == [params, params]
    relu = model("RNN", arrays("RNN", 1, []), activations=["Relu"])
    (layer,) = from_onnx(relu).values()
    assert layer.network.cell.update.activation is jax.nn.relu
    # ... so that PyTorch has it too
    assert "weight_ih_l0" in jaxseq.convert.to_torch(layer.network)


def test_node_tests_of_onnx():
    from onnx.backend.test.case import node as cases

    for kind in EACH:  # whose import makes them
        import_module(f"{cases.__name__}.{kind.lower()}")
    seen = [case for case in cases._NodeTestCases if case.model.graph.node]
    seen = [case for case in seen if case.model.graph.node[0].op_type in EACH]
    assert len(seen) >= 13
    for case in seen:
        (node,), ((inputs, outputs),) = case.model.graph.node, case.data_sets
        named = dict(zip(filter(None, node.input), inputs, strict=True))
        own = [onnx.numpy_helper.from_array(named[k], k) for k in named if k != "X"]
        case.model.graph.initializer.extend(own)
        (layer,) = from_onnx(case.model).values()
        x, first = named["X"], any(a.name == "layout" and a.i for a in node.attribute)
        found = ours(layer, x.swapaxes(0, 1) if first else x, node.op_type)
        if first:
            found = [np.moveaxis(a, -2, 0) for a in found]
        by_name = dict(zip(("Y", "Y_h", "Y_c"), found, strict=False))
        close([by_name[name] for name in filter(None, node.output)], outputs)


@pytest.mark.parametrize("kind", EACH)
def test_batch_first_in_float64(kind):
    """By ONNX's own reference, for ONNX Runtime has neither."""
    given = ["B", "initial_h", *(["initial_c", "P"] if kind == "LSTM" else [])]
    inputs = arrays(kind, 1, given, dtype=np.float64)
    first = {k: np.moveaxis(a, 1, 0) for k, a in inputs.items()}
    first |= {k: inputs[k] for k in ("W", "R", "B", "P") if k in inputs}
    proto = model(kind, first, layout=1)
    from onnx.reference import ReferenceEvaluator

    want = ReferenceEvaluator(proto).run(None, {"X": first["X"]})
    (layer,) = from_onnx(proto).values()
    found = ours(layer, inputs["X"], kind)
    close([np.moveaxis(a, -2, 0) for a in found], want, 1e-12)


def test_16_bits():
    inputs = arrays("LSTM", 1, ["B", "initial_h"], dtype=np.float16)
    proto = model("LSTM", inputs)
    (layer,) = from_onnx(proto).values()
    close(ours(layer, inputs["X"], "LSTM"), run(proto, inputs), 2e-3)


def test_what_is_known_only_when_the_model_runs():
    given = ["sequence_lens", "initial_h", "initial_c"]
    inputs = arrays("LSTM", 2, given)
    how = {"dynamic": ("X", *given), "direction": "bidirectional"}
    proto = model("LSTM", inputs, **how)
    (layer,) = from_onnx(proto).values()
    assert layer.state is None and layer.lengths is None
    parts = zip(inputs["initial_h"], inputs["initial_c"], strict=True)
    state = (tuple(jaxseq.LSTMState(*own) for own in parts),)
    found = ours(layer, inputs["X"], "LSTM", state, inputs["sequence_lens"])
    close(found, run(proto, inputs))


@pytest.mark.parametrize("kind", EACH)
def test_a_final_state_of_no_steps(kind):
    """Is the initial one, and zeros in ONNX Runtime."""
    given = ["sequence_lens", "initial_h", *(["initial_c"] if kind == "LSTM" else [])]
    inputs = arrays(kind, 2, given)
    inputs["sequence_lens"] = np.zeros(B, np.int32)
    proto = model(kind, inputs, direction="bidirectional")
    (layer,) = from_onnx(proto).values()
    y, *ends = ours(layer, inputs["X"], kind)
    for end, name in zip(ends, given[1:], strict=True):
        np.testing.assert_array_equal(end, inputs[name])
    want, *zeros = run(proto, inputs)
    np.testing.assert_array_equal(y, want)
    assert not any(a.any() for a in zeros)


def test_files_and_names(tmp_path):
    inputs = arrays("GRU", 1, ["B"])
    proto = model("GRU", inputs)
    onnx.save(proto, tmp_path / "a.onnx")
    want = from_onnx(proto)["the node"].network
    for form in (
        tmp_path / "a.onnx",
        str(tmp_path / "a.onnx"),
        proto.SerializeToString(),
    ):
        (layer,) = from_onnx(form, name="the node").values()
        same = jax.tree.map(np.array_equal, layer.network, want)
        assert all(jax.tree.leaves(same))
    proto.graph.node[0].name = ""
    assert [*from_onnx(proto)] == ["Y"]
    other = onnx.NodeProto()
    other.CopyFrom(proto.graph.node[0])
    other.output[:] = ["Y2", "Y_h2"]
    proto.graph.node[0].name = other.name = "twice"
    proto.graph.node.append(other)
    assert [*from_onnx(proto)] == ["Y", "Y2"]
    assert [*from_onnx(proto, name="Y2")] == ["Y2"]


def test_weights_that_follow_from_constants():
    """In a subgraph too."""
    inputs = arrays("RNN", 1, [])
    proto = model("RNN", inputs)
    want = from_onnx(proto)["the node"].network
    graph, helper = proto.graph, onnx.helper
    tensor = onnx.numpy_helper.from_array(inputs["W"][0])
    axis = onnx.numpy_helper.from_array(np.array([0]), "axis")
    made = [
        helper.make_node("Constant", [], ["flat"], value=tensor),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["made"]),
    ]
    node = graph.node.pop()
    node.input[1] = "made"
    graph.initializer.append(axis)
    inner = helper.make_graph([node], "inner", [], [graph.output[0]])
    true = helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    graph.initializer.append(true)
    either = {"then_branch": inner, "else_branch": inner}
    graph.node.extend([*made, helper.make_node("If", ["true"], ["Y"], **either)])
    found = from_onnx(proto)
    for layer in found.values():
        same = jax.tree.map(np.array_equal, layer.network, want)
        assert all(jax.tree.leaves(same))


def changed(
    kind="LSTM", given=("B",), n=1, dynamic=("X",), opset=17, inputs=None, **how
):
    return model(kind, arrays(kind, n, given) | (inputs or {}), opset, dynamic, **how)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


WRONG = {
    "no model": (3, "model: expected a path, bytes or a ModelProto, got int"),
    "no node": (
        onnx.helper.make_model(onnx.helper.make_graph([], "none", [], [])),
        r"model: expected nodes among \['RNN', 'LSTM', 'GRU'\], got none",
    ),
    "an old opset": (changed(opset=6), "an opset of at least 7, got 6"),
    "weights as inputs": (
        changed(dynamic=("X", "W")),
        r"the node\.W: expected a constant of the model, got W",
    ),
    "a wrong W": (
        changed(inputs={"W": ones(1, 12, 2)}),
        r"the node\.W: expected shape \(1, 16, \*\), got \(1, 12, 2\)",
    ),
    "a wrong R": (
        changed(inputs={"R": ones(1, 12, 4)}),
        r"the node\.R: expected shape \(1, 16, 4\), got \(1, 12, 4\)",
    ),
    "R transposed": (
        changed(inputs={"R": ones(1, 4, 16)}, hidden_size=4),
        r"the node\.R: expected shape \(1, 16, 4\), got \(1, 4, 16\)",
    ),
    "integers": (
        changed(inputs={"R": ones(1, 16, 4, dtype=np.int64)}),
        r"the node\.R: expected a float dtype, got int64",
    ),
    "only integers": (
        changed(
            inputs={"W": ones(1, 16, 2, dtype=int), "R": ones(1, 16, 4, dtype=int)}
        ),
        r"the node\.W: expected a float dtype, got int64",
    ),
    "a wrong B": (
        changed(inputs={"B": ones(1, 16)}),
        r"the node\.B: expected shape \(1, 32\), got \(1, 16\)",
    ),
    "a wrong P": (
        changed(inputs={"P": ones(1, 16)}),
        r"the node\.P: expected shape \(1, 12\), got \(1, 16\)",
    ),
    "a wrong state": (
        changed(inputs={"initial_h": ones(2, B, H)}),
        r"the node\.initial_h: expected shape \(1, \*, 4\), got \(2, 3, 4\)",
    ),
    "a wrong dtype": (
        changed(inputs={"B": ones(1, 32, dtype=np.float16)}),
        r"the node\.B: expected dtype float32, got float16",
    ),
    "a wrong size": (
        changed(hidden_size=5),
        r"the node\.hidden_size: expected 4, as of R, got 5",
    ),
    "no such direction": (
        changed(direction="up"),
        r"the node\.direction: expected one",
    ),
    "one direction for two": (
        changed(direction="bidirectional"),
        r"the node\.R: expected shape \(2, \*, \*\), got \(1, 16, 4\)",
    ),
    "no such activation": (
        changed(activations=["Sigmoid", "Gelu", "Tanh"]),
        "activations: expected names among .*, got 'Gelu'",
    ),
    "too few activations": (
        changed(activations=["Sigmoid"]),
        r"the node\.activations: expected 3 names, got 1",
    ),
    "clip": (changed(clip=0.0), r"the node\.clip: expected a number above 0, got 0"),
}


@pytest.mark.parametrize("proto, message", WRONG.values(), ids=WRONG)
def test_wrong_models(proto, message):
    with pytest.raises(ValueError, match=message):
        from_onnx(proto)


def test_a_wrong_name():
    with pytest.raises(ValueError, match="name: expected a node among 'the node', got"):
        from_onnx(changed(), name="other")


def test_a_network_is_jitted():
    inputs = arrays("LSTM", 1, ["B", "P"])
    layer = from_onnx(model("LSTM", inputs, clip=0.5))["the node"]
    x = jnp.asarray(inputs["X"].swapaxes(0, 1))
    _, want = layer.network(x)
    _, y = jax.jit(lambda network, x: network(x))(layer.network, x)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-6)


def test_every_node_has_a_key():
    """In both branches of an If, and where a name is that of another's output."""
    inputs = arrays("RNN", 1, [])
    graph, helper = model("RNN", inputs).graph, onnx.helper
    node, other = graph.node[0], onnx.NodeProto()
    other.CopyFrom(node)
    other.input[1] = "V"
    branch = lambda own: helper.make_graph([own], "inner", [], [graph.output[0]])
    either = {"then_branch": branch(node), "else_branch": branch(other)}
    proto = model("RNN", inputs | {"W": inputs["W"]})
    proto.graph.initializer.append(onnx.numpy_helper.from_array(2 * inputs["W"], "V"))
    proto.graph.node.append(helper.make_node("If", ["true"], ["Z"], **either))
    proto.graph.node[0].name = "Y"
    found = from_onnx(proto)
    assert [*found] == ["Y", "Y_1", "Y_2"]
    w_x = [layer.network.layers[0].w_x for layer in found.values()]
    assert np.array_equal(w_x[1], 2 * w_x[0]) and np.array_equal(w_x[2], w_x[0])
    proto = model("RNN", inputs)
    proto.graph.node.append(other)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(inputs["W"], "V"))
    proto.graph.node[0].name, proto.graph.node[1].name = "", "Y"
    assert [*from_onnx(proto)] == ["Y_1", "Y"]


def test_weights_in_another_file(tmp_path):
    path = tmp_path / "a.onnx"
    how = {"location": "weights", "size_threshold": 0}
    onnx.save(
        model("LSTM", arrays("LSTM", 1, ["B"])), path, save_as_external_data=True, **how
    )
    assert len(from_onnx(path)) == 1
    for form in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        with pytest.raises(ValueError, match="model: expected the path of a model"):
            from_onnx(form)
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match="expected a model with the files of its"):
        from_onnx(path)
