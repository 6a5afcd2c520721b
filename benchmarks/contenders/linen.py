"""Flax Linen with resets: a cell in `nn.scan`, its carry zeroed where an episode ends.

So do PureJaxRL and those that follow it; time comes first, as there.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contender import Layer
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem

CELLS: Any = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "rnn": nn.SimpleCell}
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": ""}


class Step(nn.Module):
    op: str
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        x, reset = inputs
        carry = jax.tree.map(lambda a: jnp.where(reset[:, None], 0, a), carry)
        cell = CELLS[self.op](self.features, dtype=self.dtype, name="cell")
        return cell(carry, x)


Scan: Any = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False})


def layer(problem: Problem) -> Layer:
    case = problem.case
    if case.ragged or len(problem.weights) > 1 or not case.resets:
        raise Unsupported("measured with resets, one layer and one direction")
    model = Scan(case.op, case.H, problem.x.dtype)
    zeros = np.zeros((case.B, case.H), np.float32)
    start = (zeros, zeros) if case.op == "lstm" else zeros

    def apply(params: Any, x: Any, lengths: Any, resets: Any) -> Any:
        return model.apply({"params": {"cell": params}}, start, (x, resets))[1]

    restore = lambda gradients: unpack(case.op, gradients)
    return Layer(apply, pack(problem), restore, time_major=True)


def pack(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    """The weights as Linen names them: a matrix for each gate."""
    op, gates = problem.case.op, GATES[problem.case.op]
    (weights,) = problem.weights
    w_x, w_h, b = (a.astype(np.float32) for a in weights)
    if op == "rnn":
        return {"i": {"kernel": w_x, "bias": b}, "h": {"kernel": w_h}}
    w_x, w_h, b = (np.split(a, len(gates), -1) for a in (w_x, w_h, b))
    found = {}
    for k, gate in enumerate(gates):
        found[f"i{gate}"], found[f"h{gate}"] = {"kernel": w_x[k]}, {"kernel": w_h[k]}
        found[f"{'h' if op == 'lstm' else 'i'}{gate}"]["bias"] = b[k]
    if op == "gru":
        found["hn"]["bias"] = np.zeros_like(b[2])
    return found


def unpack(op: str, g: Any) -> dict[str, Any]:
    if op == "rnn":
        return {"w_x": g["i"]["kernel"], "w_h": g["h"]["kernel"], "b": g["i"]["bias"]}
    join = lambda side, name: np.concatenate([g[side + n][name] for n in GATES[op]], -1)
    b = join("h" if op == "lstm" else "i", "bias")
    found = {"w_x": join("i", "kernel"), "w_h": join("h", "kernel"), "b": b}
    return found | ({"b_hn": g["hn"]["bias"]} if op == "gru" else {})
