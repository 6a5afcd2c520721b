"""`jax.experimental.rnn`, an LSTM by cuDNN: one flat vector of weights, two biases."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import rnn

from benchmarks.contender import Layer
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem


def layer(problem: Problem, lstm: Any = rnn.lstm) -> Layer:
    case = problem.case
    B, T, D, H = case[2:6]
    plain = len(problem.weights) == 1 and not case.resets
    if case.op != "lstm" or problem.x.dtype != np.float32 or not plain:
        raise Unsupported("measured as one LSTM in float32")
    (weights,) = problem.weights
    zeros, all_steps = np.zeros((1, B, H), np.float32), np.full(B, T, np.int32)
    arrays = (weights.w_x.T, weights.w_h.T, weights.b, np.zeros_like(weights.b))
    flat = np.concatenate([a.ravel() for a in arrays])

    def apply(flat: Any, x: Any, lengths: Any, resets: Any) -> Any:
        lengths = all_steps if lengths is None else lengths
        return lstm(x, zeros, zeros, flat, lengths, D, H, 1, 0.0, False)[0]

    def restore(gradients: Any) -> dict[str, Any]:
        w_x, w_h, b, _ = rnn.unpack_lstm_weights(jnp.asarray(gradients), D, H, 1, False)
        return {"w_x": w_x[0].T, "w_h": w_h[0].T, "b": b[0]}

    return Layer(apply, flat, restore)
