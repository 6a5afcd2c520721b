"""Keras on its JAX backend: the layer's `stateless_call` in `jax.jit`."""

import os
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.contender import Layer, compose
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, Weights, permute

os.environ["KERAS_BACKEND"] = "jax"

import keras

LAYERS = {
    "rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def one(problem: Problem, weights: Weights) -> Layer:
    op, _, B, T, _, H = problem.case[:6]
    if problem.case.resets:
        raise Unsupported("no resets")
    w_x, w_h, b = weights
    # the default, an orthogonal matrix, is not to be had in 16 bits
    how: Any = {"recurrent_initializer": "zeros", "dtype": problem.x.dtype.name}
    rnn = LAYERS[op](H, return_sequences=True, **how)
    rnn.build((B, T, w_x.shape[0]))
    if op == "gru":
        # gates z r n, and a second row of biases inside the reset gate
        w_x, w_h, b = (permute(w, (1, 0, 2)) for w in (w_x, w_h, b))
        b = np.stack([b, np.zeros_like(b)])
    # NumPy's bfloat16 is unknown to Keras
    rnn.set_weights([w.astype(np.float32) for w in (w_x, w_h, b)])
    values = [v.value for v in rnn.trainable_variables]
    others = [np.asarray(v.value) for v in rnn.non_trainable_variables]

    def apply(values: Any, x: Any, lengths: Any, resets: Any) -> Any:
        mask = None if lengths is None else jnp.arange(T) < lengths[:, None]
        return rnn.stateless_call(values, others, x, mask=mask)[0]

    def restore(gradients: Any) -> dict[str, Any]:
        w_x, w_h, b = gradients
        if op != "gru":
            return {"w_x": w_x, "w_h": w_h, "b": b}
        w_x, w_h, b = (permute(w, (1, 0, 2)) for w in gradients)
        return {"w_x": w_x, "w_h": w_h, "b": b[0], "b_hn": b[1, 2 * H :]}

    eager = (lambda x: rnn(x)) if problem.lengths is None else None
    return Layer(apply, values, restore, eager=eager)


layer = partial(compose, one)
