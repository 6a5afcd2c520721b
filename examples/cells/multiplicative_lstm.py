"""Multiplicative long short-term memory.

    m_t = (W_mx x_t + b_m) ⊙ (W_mh h_{t-1})     intermediate state
    ĥ_t = W_hx x_t + W_hm m_t + b_h             candidate
    i_t = σ(W_ix x_t + W_im m_t + b_i)          input gate
    o_t = σ(W_ox x_t + W_om m_t + b_o)          output gate
    f_t = σ(W_fx x_t + W_fm m_t + b_f)          forget gate
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ ĥ_t             cell
    h_t = tanh(c_t ⊙ o_t)                       hidden, also the output

The paper writes no biases. Its LSTM squashes after the output gate, not before, and
does not squash the candidate.

Krause, Lu, Murray and Renals, "Multiplicative LSTM for sequence modelling", 2016,
https://arxiv.org/abs/1609.07959.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq
from jaxseq import LSTMState


def update(z_x: Array, state: LSTMState, w_h: Any, _: None) -> LSTMState:
    x_m, *x_gates = jnp.split(z_x, 5)
    m = x_m * w_h["m"](state.h)
    n, i, o, f = jnp.split(jnp.hstack(x_gates) + w_h["gates"](m), 4)
    c = sigmoid(f) * state.c + sigmoid(i) * n
    return LSTMState(tanh(c * sigmoid(o)), c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    w_h = {"m": (H, H), "gates": (H, 4 * H)}
    return jaxseq.cell_init(key, D, 5 * H, w_h, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> LSTMState:
    W_mh = params.w_h["m"]
    H = W_mh.shape[0]
    return jaxseq.cell_zeros(LSTMState(H, H), batch, dtype=W_mh.dtype)


MULTIPLICATIVE_LSTM = jaxseq.Cell(update, init, zeros)
