"""jaxseq's own functions, with the default implementation."""

from typing import Any

import jax
import numpy as np

import jaxseq
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem


def layer(problem: Problem, implementation: str | None = None) -> Layer:
    op, _, w_x, w_h, b, _ = problem
    weights = {
        "rnn": lambda: jaxseq.RNNParams(w_x, w_h, b),
        "lstm": lambda: jaxseq.LSTMParams(w_x, w_h, b),
        "gru": lambda: jaxseq.GRUParams(w_x, w_h, b, np.zeros_like(b[: len(w_h)])),
    }[op]()
    f = {"rnn": jaxseq.rnn, "lstm": jaxseq.lstm, "gru": jaxseq.gru}[op]

    def apply(weights: Any, x: Any) -> Any:
        _, y = f(weights, x, implementation=implementation)
        return y

    return Layer(apply, weights, lambda gradients: gradients._asdict())


def prepare(problem: Problem, mode: str, device: jax.Device) -> Prepared:
    return compile_layer(layer(problem), problem, mode, device)
