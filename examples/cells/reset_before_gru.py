"""Gated recurrent unit with the reset gate before the product, as first published.

    r_t = σ(W_r x_t + U_r h_{t-1} + b_r)                 reset gate
    z_t = σ(W_z x_t + U_z h_{t-1} + b_z)                 update gate
    h̃_t = tanh(W x_t + U (r_t ⊙ h_{t-1}) + b)            candidate
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ h̃_t                hidden, also the output

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
Statistical Machine Translation", 2014, https://arxiv.org/abs/1406.1078, equations 5
to 8, to which the biases are added. `jaxseq.gru` resets after the product.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh

import jaxseq


def update(z_x: Array, h: Array, w_h: Any, _: None) -> Array:
    x_r, x_z, x_h = jnp.split(z_x, 3)
    h_r, h_z = jnp.split(w_h["gates"](h), 2)
    r = sigmoid(x_r + h_r)
    z = sigmoid(x_z + h_z)
    n = tanh(x_h + w_h["candidate"](r * h))
    return z * h + (1 - z) * n


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    w_h = {"gates": (H, 2 * H), "candidate": (H, H)}
    return jaxseq.cell_init(key, D, 3 * H, w_h, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> Array:
    U = params.w_h["candidate"]
    return jaxseq.cell_zeros(U.shape[0], batch, dtype=U.dtype)


RESET_BEFORE_GRU = jaxseq.Cell(update, init, zeros)
