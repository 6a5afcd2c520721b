"""Long short-term memory with layer normalization.

    (f_t, i_t, o_t, g_t) = LN(W_h h_{t-1}; α_1) + LN(W_x x_t; α_2) + b
    c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)
    h_t = σ(o_t) ⊙ tanh(LN(c_t; α_3) + β_3)             hidden, also the output
    LN(a; α) = α ⊙ (a - mean(a)) / √(var(a) + ε)

The paper adds three biases to the gates, β_1, β_2 and b; here b is their sum. ε is
1e-5.

Ba, Kiros and Hinton, "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450,
supplementary material.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq
from jaxseq import LSTMState


class Norms(NamedTuple):
    alpha_1: Array  # (4H,)
    alpha_2: Array  # (4H,)
    alpha_3: Array  # (H,)
    beta_3: Array  # (H,)
    b: Array  # (4H,)


def LN(a: Array, alpha: Array) -> Array:
    return alpha * (a - a.mean()) / jnp.sqrt(a.var() + 1e-5)


def update(z_x: Array, state: LSTMState, w_h: Any, p: Norms) -> LSTMState:
    z = LN(w_h(state.h), p.alpha_1) + LN(z_x, p.alpha_2) + p.b
    f, i, o, g = jnp.split(z, 4)
    c = sigmoid(f) * state.c + sigmoid(i) * tanh(g)
    return LSTMState(sigmoid(o) * tanh(LN(c, p.alpha_3) + p.beta_3), c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    ones, zeros = (partial(f, dtype=dtype) for f in (jnp.ones, jnp.zeros))
    extra = Norms(ones(4 * H), ones(4 * H), ones(H), zeros(H), zeros(4 * H))
    params = jaxseq.cell_init(key, D, 4 * H, (H, 4 * H), extra=extra, dtype=dtype)
    return params._replace(b=None)  # z_x is normalized without a bias


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> LSTMState:
    H = params.w_h.shape[0]
    return jaxseq.cell_zeros(LSTMState(H, H), batch, dtype=params.w_h.dtype)


LAYER_NORM_LSTM = jaxseq.Cell(update, init, zeros)
