"""Haiku: `hk.dynamic_unroll`, time-major as is its default, input and output alike.

Its GRU applies the reset gate before the recurrent product and its VanillaRNN is
relu. Both get the weights that would make them equal if that were not so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import haiku as hk
import jax
import numpy as np

from benchmarks.contender import Layer, compose
from benchmarks.errors import Unsupported
from benchmarks.problem import Problem, Weights, permute

CORES: dict[str, Callable[[int], Any]] = {
    "rnn": lambda H: hk.VanillaRNN(H, double_bias=False),
    "lstm": hk.LSTM,
    "gru": hk.GRU,
}


def pack(op: str, weights: Weights) -> dict[str, dict[str, np.ndarray]]:
    w_x, w_h, b = weights
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


def unpack(op: str, D: int, g: Any) -> dict[str, Any]:
    if op == "rnn":
        x, h = g["vanilla_rnn/linear"], g["vanilla_rnn/linear_1"]
        return {"w_x": x["w"], "w_h": h["w"], "b": x["b"]}
    if op == "gru":
        names = {"w_x": "w_i", "w_h": "w_h", "b": "b"}
        return {n: flip(permute(g["gru"][k], (1, 0, 2)), 1) for n, k in names.items()}
    w, b = (permute(g["lstm/linear"][k], (0, 2, 1, 3)) for k in ("w", "b"))
    return {"w_x": w[:D], "w_h": w[D:], "b": b}


def flip(w: np.ndarray, gate: int) -> np.ndarray:
    """Turns the sign of one of three gates: Haiku's z is 1 - z of jaxseq."""
    gates = np.split(w, 3, axis=-1)
    gates[gate] = -gates[gate]
    return np.concatenate(gates, axis=-1)


def one(problem: Problem, weights: Weights) -> Layer:
    case, D = problem.case, weights.w_x.shape[0]
    if case.ragged or case.resets:
        raise Unsupported("no lengths, and hk.ResetCore is not measured")
    if case.op != "lstm" and problem.x.dtype != np.float32:
        raise Unsupported("other numbers, as in float32")
    core = lambda: CORES[case.op](case.H)

    def start(like: Any) -> Any:
        # the states of Haiku's cores are float32 unless told otherwise
        state = core().initial_state(case.B)
        return jax.tree.map(lambda a: a.astype(like.dtype), state)

    unroll = lambda x: hk.dynamic_unroll(core(), x, start(x))[0]
    run = hk.without_apply_rng(hk.transform(unroll)).apply
    once = hk.without_apply_rng(hk.transform(lambda x, state: core()(x, state))).apply
    zeros: Any = np.zeros((case.B, case.H), problem.x.dtype)
    return Layer(
        lambda params, x, lengths, resets: run(params, x),
        pack(case.op, weights),
        lambda gradients: unpack(case.op, D, gradients),
        step=lambda params, state, x: once(params, x, state)[::-1],
        zeros=hk.LSTMState(zeros, zeros) if case.op == "lstm" else zeros,
        time_major=True,
    )


layer = partial(compose, one)
