"""Long short-term memory with peepholes.

    i_t = σ(W_xi x_t + W_hi h_{t-1} + w_ci ⊙ c_{t-1} + b_i)      input gate
    f_t = σ(W_xf x_t + W_hf h_{t-1} + w_cf ⊙ c_{t-1} + b_f)      forget gate
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_xc x_t + W_hc h_{t-1} + b_c)
    o_t = σ(W_xo x_t + W_ho h_{t-1} + w_co ⊙ c_t + b_o)          output gate
    h_t = o_t ⊙ tanh(c_t)                                        also the output

Gers and Schmidhuber, "Recurrent Nets that Time and Count", 2000,
https://doi.org/10.1109/IJCNN.2000.861302. Symbols follow Graves, "Generating
Sequences With Recurrent Neural Networks", 2013, https://arxiv.org/abs/1308.0850,
equations 7 to 11; w_ci, w_cf and w_co are the diagonals of his W_ci, W_cf and W_co.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq
from jaxseq import LSTMState


class Peepholes(NamedTuple):
    w_ci: Array  # (H,)
    w_cf: Array  # (H,)
    w_co: Array  # (H,)


def update(z_x: Array, state: LSTMState, w_h: Any, p: Peepholes) -> LSTMState:
    i, f, g, o = jnp.split(z_x + w_h(state.h), 4)
    i = sigmoid(i + p.w_ci * state.c)
    f = sigmoid(f + p.w_cf * state.c)
    c = f * state.c + i * tanh(g)
    o = sigmoid(o + p.w_co * c)
    return LSTMState(o * tanh(c), c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    extra = Peepholes(*(jnp.zeros(H, dtype) for _ in range(3)))
    return jaxseq.cell_init(key, D, 4 * H, (H, 4 * H), extra=extra, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> LSTMState:
    H = params.w_h.shape[0]
    return jaxseq.cell_zeros(LSTMState(H, H), batch, dtype=params.w_h.dtype)


PEEPHOLE_LSTM = jaxseq.Cell(update, init, zeros)
