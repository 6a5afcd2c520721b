"""Keras on its JAX backend: the layer's `stateless_call` in `jax.jit`."""

import os
from typing import Any

import numpy as np

from benchmarks.device import Device
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem, permute

os.environ["KERAS_BACKEND"] = "jax"

import keras

LAYERS = {
    "rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    op, _, w_x, w_h, b, _ = problem
    B, T, D, H = problem.shape
    layer = LAYERS[op](H, return_sequences=True)
    layer.build((B, T, D))
    if op == "gru":
        # gates z r n, and a second row of biases inside the reset gate
        w_x, w_h, b = (permute(w, (1, 0, 2)) for w in (w_x, w_h, b))
        b = np.stack([b, np.zeros_like(b)])
    layer.set_weights([w_x, w_h, b])
    weights = [v.value for v in layer.trainable_variables]
    others = [np.asarray(v.value) for v in layer.non_trainable_variables]

    def apply(weights: Any, x: Any) -> Any:
        return layer.stateless_call(weights, others, x)[0]

    def restore(gradients: Any) -> dict[str, Any]:
        w_x, w_h, b = gradients
        if op != "gru":
            return {"w_x": w_x, "w_h": w_h, "b": b}
        w_x, w_h, b = (permute(w, (1, 0, 2)) for w in gradients)
        return {"w_x": w_x, "w_h": w_h, "b": b[0], "b_hn": b[1, 2 * H :]}

    return compile_layer(Layer(apply, weights, restore), problem, mode, device)
