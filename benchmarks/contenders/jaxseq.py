"""jaxseq's own functions, with the default implementation."""

from typing import Any

import jaxseq
from benchmarks.device import Device
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem

OPS: dict[str, tuple[Any, Any]] = {
    "rnn": (jaxseq.rnn, jaxseq.RNNParams),
    "lstm": (jaxseq.lstm, jaxseq.LSTMParams),
    "gru": (jaxseq.gru, jaxseq.GRUParams),
}


def layer(problem: Problem, implementation: str | None = None) -> Layer:
    f, Params = OPS[problem.op]

    def apply(weights: Any, x: Any) -> Any:
        _, y = f(weights, x, implementation=implementation)
        return y

    return Layer(apply, Params(*problem.weights), lambda gradients: gradients._asdict())


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    return compile_layer(layer(problem), problem, mode, device)
