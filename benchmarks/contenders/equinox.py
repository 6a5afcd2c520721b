"""Equinox: a cell in `jax.lax.scan` for one sequence, and `jax.vmap` over the batch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.device import Device
from benchmarks.errors import NoSuchCell
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem

CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    if problem.op not in CELLS:
        raise NoSuchCell(f"no cell for {problem.op}")
    _, _, D, H = problem.shape
    cell = CELLS[problem.op](D, H, key=jax.random.key(0))
    arrays = (problem.w_x.T, problem.w_h.T, problem.b)
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, arrays)
    zeros: Any = jnp.zeros(H, jnp.float32)
    if problem.op == "lstm":
        zeros = zeros, zeros
    else:
        cell = eqx.tree_at(lambda c: c.bias_n, cell, zeros)

    def sequence(cell: Any, x: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state = cell(x, state)
            return state, jax.tree.leaves(state)[0]

        return jax.lax.scan(step, zeros, x)[1]

    def restore(g: Any) -> dict[str, Any]:
        named = {"w_x": g.weight_ih.T, "w_h": g.weight_hh.T, "b": g.bias}
        return named if problem.op == "lstm" else {**named, "b_hn": g.bias_n}

    apply = jax.vmap(sequence, in_axes=(None, 0))
    return compile_layer(Layer(apply, cell, restore), problem, mode, device)
