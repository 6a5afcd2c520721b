"""Flax: `nnx.RNN`, split outside `jax.jit` and merged inside it.

In 16 bits the weights stay float32, as Flax's documents have it.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.contender import Layer, compose
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, Weights

CELLS: Any = {
    "rnn": nnx.SimpleCell,
    "lstm": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
}


def one(problem: Problem, weights: Weights) -> Layer:
    case = problem.case
    if case.resets:
        raise Unsupported("no resets; `linen` has a scan of one's own")
    dtype = problem.x.dtype
    cell = CELLS[case.op](weights.w_x.shape[0], case.H, dtype=dtype, rngs=nnx.Rngs(0))
    biased = "dense_h" if case.op == "lstm" else "dense_i"
    param = lambda a: nnx.Param(jnp.asarray(a.astype(np.float32)))
    cell.dense_i.kernel = param(weights.w_x)
    cell.dense_h.kernel = param(weights.w_h)
    getattr(cell, biased).bias = param(weights.b)
    rnn: Any = nnx.RNN(cell, rngs=False)
    graph, state = nnx.split(rnn)

    def apply(state: Any, x: Any, lengths: Any, resets: Any) -> Any:
        # a carry of zeros is made with a key, which must come from this trace
        model: Any = nnx.merge(graph, state)
        return model(x, seq_lengths=lengths, rngs=nnx.Rngs(0)).astype(dtype)

    def step(state: Any, carry: Any, x: Any) -> Any:
        model: Any = nnx.merge(graph, state)
        return model.cell(carry, x)

    def restore(gradients: Any) -> dict[str, Any]:
        g = nnx.to_pure_dict(gradients)["cell"]
        w_x, w_h = g["dense_i"]["kernel"], g["dense_h"]["kernel"]
        return {"w_x": w_x, "w_h": w_h, "b": g[biased]["bias"]}

    zeros = cell.initialize_carry((case.B, case.D), nnx.Rngs(0))
    eager = partial(rnn, seq_lengths=problem.lengths, rngs=nnx.Rngs(0))
    return Layer(apply, state, restore, step, zeros, eager=eager)


layer = partial(compose, one)
