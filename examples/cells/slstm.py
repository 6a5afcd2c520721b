"""sLSTM, the scalar cell of xLSTM, with a block of recurrent weights for each head.

    z_t = tanh(W_z x_t + R_z h_{t-1} + b_z)             cell input
    ĩ_t = W_i x_t + R_i h_{t-1} + b_i                   input gate, i_t = exp(ĩ_t)
    f̃_t = W_f x_t + R_f h_{t-1} + b_f                   forget gate, f_t = σ(f̃_t)
    o_t = σ(W_o x_t + R_o h_{t-1} + b_o)                output gate
    m_t = max(log f_t + m_{t-1}, ĩ_t)                   stabilizer
    i'_t = exp(ĩ_t - m_t)
    f'_t = exp(log f_t + m_{t-1} - m_t)
    c_t = f'_t ⊙ c_{t-1} + i'_t ⊙ z_t                   cell
    n_t = f'_t ⊙ n_{t-1} + i'_t                         normalizer
    h_t = o_t ⊙ c_t / n_t                               hidden, also the output

Each R is block-diagonal, with one block for each of the N heads. For the forget gate
the paper allows σ or exp; this is σ.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024,
https://arxiv.org/abs/2405.04517, section 2.2.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import log_sigmoid, sigmoid
from jax.numpy import exp, tanh

import jaxseq


class SLSTMState(NamedTuple):
    h: Array  # (..., H)
    c: Array  # (..., H)
    n: Array  # (..., H)
    m: Array  # (..., H)


def update(z_x: Array, state: SLSTMState, w_h: Any, _: None) -> SLSTMState:
    x_z, x_i, x_f, x_o = jnp.split(z_x, 4)
    z = tanh(x_z + w_h["z"](state.h))
    i = x_i + w_h["i"](state.h)
    log_f = log_sigmoid(x_f + w_h["f"](state.h))
    o = sigmoid(x_o + w_h["o"](state.h))
    m = jnp.maximum(log_f + state.m, i)
    i, f = exp(i - m), exp(log_f + state.m - m)
    c = f * state.c + i * z
    n = f * state.n + i
    return SLSTMState(o * c / n, c, n, m)


def init(
    key: Array, D: int, H: int, *, N: int = 4, dtype: Any = jnp.float32
) -> jaxseq.CellParams:
    """`N` is the number of heads; it has to divide `H`."""
    w_h = {gate: (N, H // N, H // N) for gate in "zifo"}
    return jaxseq.cell_init(key, D, 4 * H, w_h, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> SLSTMState:
    N, block, _ = params.w_h["z"].shape
    H = N * block
    return jaxseq.cell_zeros(SLSTMState(H, H, H, H), batch, dtype=params.w_h["z"].dtype)


SLSTM = jaxseq.Cell(update, init, zeros)
