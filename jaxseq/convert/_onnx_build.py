"""Puts a graph of ONNX together, node by node."""

from collections.abc import Sequence
from typing import Any


class Graph:
    """What a graph has so far."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[str, Any] = {}

    def input(self, name: str, dtype: Any, *shape: str | int) -> str:
        """An input of the model, with names for sizes that are known when it runs."""
        self.inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: Any, *shape: str | int) -> None:
        self.outputs.append(_value(name, dtype, shape))

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


def _value(name: str, dtype: Any, shape: Sequence[str | int]) -> Any:
    import numpy as np
    from onnx import helper

    own = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, own, shape)
