"""jaxseq's own functions, with the default implementation."""

from functools import partial
from typing import Any

import numpy as np

import jaxseq
from benchmarks.contender import Layer, numbered
from benchmarks.problem import Problem

OPS: dict[str, tuple[Any, ...]] = {
    "rnn": (jaxseq.RNNParams, jaxseq.rnn, jaxseq.rnn_step, jaxseq.rnn_zeros),
    "lstm": (jaxseq.LSTMParams, jaxseq.lstm, jaxseq.lstm_step, jaxseq.lstm_zeros),
    "gru": (jaxseq.GRUParams, jaxseq.gru, jaxseq.gru_step, jaxseq.gru_zeros),
}


def layer(problem: Problem, implementation: str | None = None) -> Layer:
    case = problem.case
    Params, f, step, zeros = OPS[case.op]
    b_hn = (np.zeros_like(problem.weights[0].b[: case.H]),) * (case.op == "gru")
    params = [Params(*weights, *b_hn) for weights in problem.weights]

    def apply(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
        masks = {"lengths": lengths, "resets": resets}
        layers = [partial(f, p, implementation=implementation) for p in params]
        if case.bidirectional:
            pairs = zip(layers[0::2], layers[1::2], strict=True)
            layers = [partial(jaxseq.bidirectional, *pair) for pair in pairs]
        if len(layers) == 1:
            return layers[0](x, **masks)[1]
        return jaxseq.stack(layers, x, **masks)[1]

    return Layer(
        apply,
        params,
        lambda gradients: numbered(list(map(by_name, gradients))),
        step=lambda params, state, x: step(params[0], state, x),
        zeros=zeros(params[0], (case.B,)),
        greedy=jaxseq_greedy if implementation is None else None,
    )


def by_name(gradients: Any) -> dict[str, Any]:
    return {name: g for name, g in gradients._asdict().items() if g is not None}


def jaxseq_greedy(step: Any, state: Any, token: Any, T: int) -> Any:
    return jaxseq.greedy(step, state, token, max_length=T, end=None).tokens
