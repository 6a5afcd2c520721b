"""Long short-term memory with a recurrent projection layer.

    i_t = σ(W_ix x_t + W_ir r_{t-1} + b_i)                       input gate
    f_t = σ(W_fx x_t + W_fr r_{t-1} + b_f)                       forget gate
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(W_cx x_t + W_cr r_{t-1} + b_c)
    o_t = σ(W_ox x_t + W_or r_{t-1} + b_o)                       output gate
    m_t = o_t ⊙ tanh(c_t)                                        cell output
    r_t = W_rm m_t                                               projection, the output

r_t has width H, and there are n_c cells. Left out are the peepholes, as in PyTorch's
`proj_size`, the second projection p_t, which is not recurrent, and the output layer.

Sak, Senior and Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
Architectures for Large Vocabulary Speech Recognition", 2014,
https://arxiv.org/abs/1402.1128.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq


class ProjectedState(NamedTuple):
    r: Array  # (..., H)
    c: Array  # (..., n_c)


def update(z_x: Array, state: ProjectedState, w_h: Any, _: None) -> ProjectedState:
    i, f, g, o = jnp.split(z_x + w_h["gates"](state.r), 4)
    c = sigmoid(f) * state.c + sigmoid(i) * tanh(g)
    m = sigmoid(o) * tanh(c)
    return ProjectedState(w_h["projection"](m), c)


def init(
    key: Array, D: int, H: int, *, n_c: int | None = None, dtype: Any = jnp.float32
) -> jaxseq.CellParams:
    """`n_c` is 4 H if None."""
    n_c = 4 * H if n_c is None else n_c
    w_h = {"gates": (H, 4 * n_c), "projection": (n_c, H)}
    return jaxseq.cell_init(key, D, 4 * n_c, w_h, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> ProjectedState:
    W_rm = params.w_h["projection"]
    n_c, H = W_rm.shape
    return jaxseq.cell_zeros(ProjectedState(H, n_c), batch, dtype=W_rm.dtype)


PROJECTED_LSTM = jaxseq.Cell(update, init, zeros)
