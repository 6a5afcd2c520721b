"""The network of `examples/serving`, as each library steps it.

A reader takes the rows of its state that read, a token for each, and which of them
start from zeros, and gives the probabilities of the next character. All arithmetic is
float32 on one thread.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from examples.serving.model import CHARS, H, Model
from jaxseq import LSTM
from jaxseq.convert import Network, to_onnx, to_torch

Reader = Callable[[Any, Any, Any], Any]


def with_torch(params: dict[str, Any], rows: int) -> Reader:
    """The step in PyTorch, compiled by nothing, as its users have it."""
    import torch

    torch.set_num_threads(1)
    network = Network((params["lstm"],), LSTM)
    state = to_torch(network, cell=True)
    D = params["embed"].shape[1]
    tensor = lambda a: torch.from_numpy(np.array(a))
    cell = torch.nn.LSTMCell(D, H)
    cell.load_state_dict({name: tensor(a) for name, a in state.items()})
    embed, head = tensor(params["embed"]), tensor(params["head"])
    h, c = torch.zeros(rows, H), torch.zeros(rows, H)

    @torch.inference_mode()
    def read(rows: Any, tokens: Any, fresh: Any) -> Any:
        at, kept = torch.from_numpy(rows), torch.from_numpy(~fresh)[:, None]
        h[at], c[at] = new = cell(
            embed[torch.from_numpy(tokens)], (h[at] * kept, c[at] * kept)
        )
        return torch.softmax(new[0] @ head, -1).numpy()

    return read


def with_onnxruntime(params: dict[str, Any], rows: int) -> Reader:
    """One step as a graph of ONNX; NumPy keeps the states."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph(params), options)
    h, c = np.zeros((2, rows, H), np.float32)

    def read(rows: Any, tokens: Any, fresh: Any) -> Any:
        kept = ~fresh[:, None]
        given = {"tokens": tokens, "h": [h[rows] * kept], "c": [c[rows] * kept]}
        outputs: Any = session.run(None, given)
        found, (h[rows],), (c[rows],) = outputs
        return found

    return read


def graph(params: dict[str, Any]) -> bytes:
    """An ONNX model `(tokens, h, c) -> (probabilities, h, c)`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    lstm = to_onnx(Network((params["lstm"],), LSTM)).graph
    weights = [a for a in lstm.initializer if a.name in ("W_0", "R_0", "B_0")]
    others = {"embed": params["embed"], "head": params["head"], "time": np.array([0])}
    node = helper.make_node
    nodes = [
        node("Gather", ["embed", "tokens"], ["rows"]),
        node("Unsqueeze", ["rows", "time"], ["x"]),
        node(
            "LSTM",
            ["x", "W_0", "R_0", "B_0", "", "h", "c"],
            ["", "new_h", "new_c"],
            hidden_size=H,
        ),
        node("Squeeze", ["new_h", "time"], ["last"]),
        node("MatMul", ["last", "head"], ["logits"]),
        node("Softmax", ["logits"], ["p"]),
    ]
    value = helper.make_tensor_value_info
    state = lambda name: value(name, TensorProto.FLOAT, [1, "n", H])
    made = helper.make_graph(
        nodes,
        "step",
        [value("tokens", TensorProto.INT64, ["n"]), state("h"), state("c")],
        [value("p", TensorProto.FLOAT, ["n", len(CHARS)]), *map(state, NEW)],
        [
            *weights,
            *(numpy_helper.from_array(np.asarray(a), n) for n, a in others.items()),
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(made, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


NEW = "new_h", "new_c"


def nothing(params: dict[str, Any], rows: int) -> Reader:
    """No network, so that what is left is the server and its load."""
    return lambda rows, *_: np.ones((len(rows), len(CHARS)), np.float32)


def alone(read: Reader) -> Reader:
    """The same, one row after the other."""

    def each(*args: Any) -> Any:
        return np.concatenate(
            [read(*one) for one in zip(*map(_rows, args), strict=True)]
        )

    return each


def _rows(a: Any) -> list[Any]:
    return np.split(a, len(a))


NETWORKS: dict[str, Callable[[dict[str, Any], int], Reader]] = {
    "jaxseq": Model,
    "onnxruntime": with_onnxruntime,
    "torch": with_torch,
    "none": nothing,
}


def errors(make: Callable[..., Reader], params: dict[str, Any]) -> float:
    """How far its probabilities are from those of jaxseq, over a run of a few rows."""
    rng, rows = np.random.default_rng(0), 5
    readers = make(params, rows), Model(params, rows)
    worst, fresh = 0.0, np.ones(rows, bool)
    for _ in range(20):
        some = rng.permutation(rows)[: rng.integers(1, rows + 1)]
        args = some, rng.integers(0, len(CHARS), len(some)), fresh[some]
        found = [np.asarray(read(*args)) for read in readers]
        worst = max(worst, float(np.abs(found[0] - found[1]).max()))
        fresh[some] = rng.random(len(some)) < 0.1
    return worst


def drawn() -> dict[str, Any]:
    from examples.serving.model import init

    return init(jax.random.key(0))
