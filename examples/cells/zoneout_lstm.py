"""Long short-term memory with zoneout.

    i_t, f_t, g_t, o_t    as in `jaxseq.lstm`
    c_t = d^c_t ⊙ c_{t-1} + (1 - d^c_t) ⊙ (f_t ⊙ c_{t-1} + i_t ⊙ g_t)
    h_t = d^h_t ⊙ h_{t-1} + (1 - d^h_t) ⊙ o_t ⊙ tanh(f_t ⊙ c_{t-1} + i_t ⊙ g_t)

The input is a tuple `(x, d_c, d_h)`; the masks `(..., T, H)` are 1 where a unit keeps
its old value, drawn by the caller anew for each step, say by `jax.random.bernoulli`.
In evaluation they are their means, the zoneout probabilities.

Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
Activations", 2017, https://arxiv.org/abs/1606.01305.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq
from jaxseq import LSTMState


def update(z_x: Any, state: LSTMState, w_h: Any, _: None) -> LSTMState:
    z, d_c, d_h = z_x
    i, f, g, o = jnp.split(z + w_h(state.h), 4)
    c = sigmoid(f) * state.c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return LSTMState(d_h * state.h + (1 - d_h) * h, d_c * state.c + (1 - d_c) * c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    params = jaxseq.cell_init(key, D, 4 * H, (H, 4 * H), dtype=dtype)
    return params._replace(w_x=(params.w_x, None, None))


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> LSTMState:
    H = params.w_h.shape[0]
    return jaxseq.cell_zeros(LSTMState(H, H), batch, dtype=params.w_h.dtype)


ZONEOUT_LSTM = jaxseq.Cell(update, init, zeros)
