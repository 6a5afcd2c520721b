"""Flax: `nnx.RNN`, split outside `jax.jit` and merged inside it."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from benchmarks.device import Device
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem

CELLS = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    _, _, D, H = problem.shape
    cell = CELLS[problem.op](D, H, rngs=nnx.Rngs(0))
    biased = "dense_h" if problem.op == "lstm" else "dense_i"
    cell.dense_i.kernel = nnx.Param(jnp.asarray(problem.w_x))
    cell.dense_h.kernel = nnx.Param(jnp.asarray(problem.w_h))
    getattr(cell, biased).bias = nnx.Param(jnp.asarray(problem.b))
    graph, weights = nnx.split(nnx.RNN(cell, rngs=False))

    def apply(weights: Any, x: Any) -> Any:
        # a carry of zeros is made with a key, which must come from this trace
        return nnx.merge(graph, weights)(x, rngs=nnx.Rngs(0))

    def restore(gradients: Any) -> dict[str, Any]:
        g = nnx.to_pure_dict(gradients)["cell"]
        w_x, w_h = g["dense_i"]["kernel"], g["dense_h"]["kernel"]
        return {"w_x": w_x, "w_h": w_h, "b": g[biased]["bias"]}

    return compile_layer(Layer(apply, weights, restore), problem, mode, device)
