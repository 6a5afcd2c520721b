"""Equinox: a cell in `jax.lax.scan` for one sequence, and `jax.vmap` over the batch."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.contender import Layer, compose
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, Weights

CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def one(problem: Problem, weights: Weights) -> Layer:
    op, _, B, _, _, H = problem.case[:6]
    if op not in CELLS:
        raise Unsupported(f"no cell for {op}")
    if problem.case.ragged or problem.case.resets:
        raise Unsupported("no lengths or resets")
    cell = CELLS[op](weights.w_x.shape[0], H, key=jax.random.key(0))
    arrays = (weights.w_x.T, weights.w_h.T, weights.b)
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, arrays)
    zeros: Any = jnp.zeros(H, problem.x.dtype)
    if op == "gru":
        cell = eqx.tree_at(lambda c: c.bias_n, cell, zeros)
    state = (zeros, zeros) if op == "lstm" else zeros

    def step(cell: Any, state: Any, x: Any) -> Any:
        state = cell(x, state)
        return state, jax.tree.leaves(state)[0]

    def sequence(cell: Any, x: Any) -> Any:
        return jax.lax.scan(partial(step, cell), state, x)[1]

    def apply(cell: Any, x: Any, lengths: Any, resets: Any) -> Any:
        return jax.vmap(sequence, in_axes=(None, 0))(cell, x)

    def restore(g: Any) -> dict[str, Any]:
        named = {"w_x": g.weight_ih.T, "w_h": g.weight_hh.T, "b": g.bias}
        return named if op == "lstm" else {**named, "b_hn": g.bias_n}

    batched = jax.tree.map(lambda a: jnp.zeros((B, H), a.dtype), state)
    return Layer(apply, cell, restore, jax.vmap(step, (None, 0, 0)), batched)


layer = partial(compose, one)
