"""Haiku: `hk.dynamic_unroll`, time-major as is its default, input and output alike.

Its GRU applies the reset gate before the recurrent product and its VanillaRNN is
relu. Both get the weights that would make them equal if that were not so.
"""

from collections.abc import Callable
from typing import Any

import haiku as hk
import numpy as np

from benchmarks.device import Device
from benchmarks.prepare import Layer, Prepared, compile_layer
from benchmarks.problem import Problem, permute

CORES: dict[str, Callable[[int], Any]] = {
    "rnn": lambda H: hk.VanillaRNN(H, double_bias=False),
    "lstm": hk.LSTM,
    "gru": hk.GRU,
}


def pack(problem: Problem) -> dict[str, dict[str, np.ndarray]]:
    op, _, w_x, w_h, b, _ = problem
    if op == "rnn":
        return {
            "vanilla_rnn/linear": {"w": w_x, "b": b},
            "vanilla_rnn/linear_1": {"w": w_h},
        }
    if op == "gru":
        w_i, w_h, b = (flip(permute(w, (1, 0, 2)), 0) for w in (w_x, w_h, b))
        return {"gru": {"w_i": w_i, "w_h": w_h, "b": b}}
    w, b = (permute(a, (0, 2, 1, 3)) for a in (np.vstack([w_x, w_h]), b))
    # Haiku adds 1 to the forget gate in the formula
    i, g, f, o = np.split(b, 4)
    return {"lstm/linear": {"w": w, "b": np.concatenate([i, g, f - 1, o])}}


def unpack(problem: Problem, g: Any) -> dict[str, Any]:
    _, _, D, _ = problem.shape
    if problem.op == "rnn":
        x, h = g["vanilla_rnn/linear"], g["vanilla_rnn/linear_1"]
        return {"w_x": x["w"], "w_h": h["w"], "b": x["b"]}
    if problem.op == "gru":
        names = {"w_x": "w_i", "w_h": "w_h", "b": "b"}
        return {n: flip(permute(g["gru"][k], (1, 0, 2)), 1) for n, k in names.items()}
    w, b = (permute(g["lstm/linear"][k], (0, 2, 1, 3)) for k in ("w", "b"))
    return {"w_x": w[:D], "w_h": w[D:], "b": b}


def flip(w: np.ndarray, gate: int) -> np.ndarray:
    """Turns the sign of one of three gates: Haiku's z is 1 - z of jaxseq."""
    gates = np.split(w, 3, axis=-1)
    gates[gate] = -gates[gate]
    return np.concatenate(gates, axis=-1)


def prepare(problem: Problem, mode: str, device: Device) -> Prepared:
    B, _, _, H = problem.shape

    def unroll(x: Any) -> Any:
        core = CORES[problem.op](H)
        return hk.dynamic_unroll(core, x, core.initial_state(B))[0]

    layer = Layer(
        hk.without_apply_rng(hk.transform(unroll)).apply,
        pack(problem),
        lambda gradients: unpack(problem, gradients),
        time_major=True,
    )
    return compile_layer(layer, problem, mode, device)
