"""Long short-term memory with coupled input and forget gates.

    z_t = tanh(W_z x_t + R_z y_{t-1} + b_z)                      block input
    i_t = σ(W_i x_t + R_i y_{t-1} + p_i ⊙ c_{t-1} + b_i)         input gate
    f_t = 1 - i_t                                                forget gate
    c_t = z_t ⊙ i_t + c_{t-1} ⊙ f_t                              cell
    o_t = σ(W_o x_t + R_o y_{t-1} + p_o ⊙ c_t + b_o)             output gate
    y_t = tanh(c_t) ⊙ o_t                                        output

Greff et al., "LSTM: A Search Space Odyssey", 2015, https://arxiv.org/abs/1503.04069,
the variant CIFG. Its peepholes start at zero; where they stay there it is the LSTM
without peepholes and with f_t = 1 - i_t.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq


class CIFGState(NamedTuple):
    y: Array  # (..., H)
    c: Array  # (..., H)


class Peepholes(NamedTuple):
    p_i: Array  # (H,)
    p_o: Array  # (H,)


def update(z_x: Array, state: CIFGState, w_h: Any, p: Peepholes) -> CIFGState:
    z, i, o = jnp.split(z_x + w_h(state.y), 3)
    i = sigmoid(i + p.p_i * state.c)
    c = tanh(z) * i + state.c * (1 - i)
    o = sigmoid(o + p.p_o * c)
    return CIFGState(tanh(c) * o, c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    extra = Peepholes(*(jnp.zeros(H, dtype) for _ in range(2)))
    return jaxseq.cell_init(key, D, 3 * H, (H, 3 * H), extra=extra, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> CIFGState:
    H = params.w_h.shape[0]
    return jaxseq.cell_zeros(CIFGState(H, H), batch, dtype=params.w_h.dtype)


CIFG_LSTM = jaxseq.Cell(update, init, zeros)
