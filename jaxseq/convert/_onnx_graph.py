"""Reads recurrent nodes of an ONNX model, with their attributes and constants."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from jaxseq._base.check import check
from jaxseq.convert._names import check_shape, some
from jaxseq.convert._onnx_ops import KINDS

INPUTS = "X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"


def load(model: Any) -> Any:
    """A `ModelProto` of what may be its file or its bytes."""
    import onnx
    import onnx.inliner
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, (str, os.PathLike)):
            model = onnx.load(os.fspath(model))
        elif isinstance(model, bytes):
            model = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ValueError(f"model: expected a model of ONNX, got {error}") from error
    except onnx.checker.ValidationError as error:
        expected = "a model with the files of its weights"
        raise ValueError(f"model: expected {expected}, got {error}") from error
    kind = type(model).__name__
    check(
        isinstance(model, onnx.ModelProto),
        "model",
        "a path, bytes or a ModelProto",
        kind,
    )
    version = opset(model)
    check(version >= 7, "model", "an opset of at least 7", version)
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def opset(model: Any) -> int:
    own = [i.version for i in model.opset_import if i.domain in ("", "ai.onnx")]
    return max(own, default=0)


class Node:
    """A recurrent node."""

    def __init__(self, model: Any, scope: dict[str, Any], proto: Any, name: str):
        import onnx.helper

        read = onnx.helper.get_attribute_value
        self.kind, self.name = proto.op_type, name
        self._attributes = {a.name: read(a) for a in proto.attribute}
        self._inputs: dict[str, str] = dict(zip(INPUTS, proto.input, strict=False))
        self._model, self._scope = model, scope

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, with text and numbers as they would be written in Python."""
        return _plain(self._attributes.get(name, default))

    def has(self, name: str) -> bool:
        """Whether this input is given."""
        return bool(self._inputs.get(name))

    def constant(self, name: str) -> Any:
        """The value of an input, or None if it is known only when the model runs."""
        return _value(self._inputs[name], self._scope, self._model)

    def weights(self, name: str, *shape: int | None) -> Any:
        """A constant that is to have this shape, in which None is any size."""
        key = f"{self.name}.{name}"
        check(self.has(name), key, "an input of this name", "none")
        a = self.constant(name)
        check(a is not None, key, "a constant of the model", self._inputs[name])
        check_shape(key, a.shape, shape)
        return a


def nodes(model: Any, name: str | None) -> list[Node]:
    """The recurrent nodes of a model, or the one of this name."""
    own = list(_walk(model.graph, {}))
    keys = _keys([proto for proto, _ in own])
    pairs = zip(own, keys, strict=True)
    found = [Node(model, scope, proto, key) for (proto, scope), key in pairs]
    check(bool(found), "model", f"nodes among {[*KINDS]}", "none")
    if name is None:
        return found
    names = [node.name for node in found]
    check(name in names, "name", f"a node among {some(names)}", repr(name))
    return [node for node in found if node.name == name]


def _keys(protos: list[Any]) -> list[str]:
    """A key for each node, all different: its name, its output, or with a number."""
    count = Counter(proto.name for proto in protos)
    used = {name for name, n in count.items() if name and n == 1}
    keys = []
    for proto in protos:
        key = proto.name
        if key not in used or count[key] > 1:
            output = next(filter(None, proto.output), proto.op_type)
            numbered = (f"{output}_{i}" if i else output for i in itertools.count())
            key = next(key for key in numbered if key not in used)
            used.add(key)
        keys.append(key)
    return keys


def _walk(graph: Any, outer: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The recurrent nodes of a graph and of those in it, and what gives each name."""
    import onnx

    scope = outer | {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        scope |= {output: node for output in node.output if output}
    for node in graph.node:
        if node.op_type in KINDS and node.domain in ("", "ai.onnx"):
            yield node, scope
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _walk(attribute.g, scope)


def _value(name: str, scope: dict[str, Any], model: Any) -> Any:
    """The value of a name if it follows from constants alone, else None."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    source = scope.get(name)
    if source is None:
        return None
    if isinstance(source, onnx.TensorProto):
        _check_inside(source)
        return numpy_helper.to_array(source)
    known = source.domain in ("", "ai.onnx") and not source.op_type.startswith("Random")
    if not known or any(a.g.node for a in source.attribute):
        return None
    for attribute in source.attribute:
        _check_inside(attribute.t)
    names = [own for own in source.input if own]
    values: dict[str, Any] = {own: _value(own, scope, model) for own in names}
    if any(a is None for a in values.values()):
        return None
    graph = onnx.helper.make_graph(
        [source],
        "constant",
        [onnx.helper.make_empty_tensor_value_info(own) for own in values],
        [onnx.helper.make_empty_tensor_value_info(name)],
    )
    single = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    found: Any = ReferenceEvaluator(single).run(None, values)
    return found[0]


def _check_inside(tensor: Any) -> None:
    from onnx.external_data_helper import uses_external_data

    expected = "the path of a model whose weights are in another file"
    got = f"the model alone, without the file of {tensor.name!r}"
    check(not uses_external_data(tensor), "model", expected, got)


def _plain(a: Any) -> Any:
    import numpy as np

    if isinstance(a, list):
        return [_plain(own) for own in a]
    if isinstance(a, float):  # a float32: the shortest decimal that names it
        return float(str(np.float32(a)))
    return a.decode() if isinstance(a, bytes) else a
