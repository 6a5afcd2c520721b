"""Minimal gated unit.

    f_t = σ(W_f [h_{t-1}, x_t] + b_f)               forget gate
    h̃_t = tanh(W_h [f_t ⊙ h_{t-1}, x_t] + b_h)      candidate
    h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t           hidden, also the output

Zhou, Wu, Zhang and Zhou, "Minimal Gated Unit for Recurrent Neural Networks", 2016,
https://arxiv.org/abs/1603.09420.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq


def update(z_x: Array, h: Array, w_h: Any, _: None) -> Array:
    x_f, x_h = jnp.split(z_x, 2)
    f = sigmoid(x_f + w_h["f"](h))
    n = tanh(x_h + w_h["h"](f * h))
    return (1 - f) * h + f * n


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    return jaxseq.cell_init(key, D, 2 * H, {"f": (H, H), "h": (H, H)}, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> Array:
    H = params.w_h["f"].shape[0]
    return jaxseq.cell_zeros(H, batch, dtype=params.w_h["f"].dtype)


MGU = jaxseq.Cell(update, init, zeros)
