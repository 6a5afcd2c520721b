"""minGRU: a GRU whose gate and candidate read the input alone.

    z_t = σ(W_z x_t + b_z)                      update gate
    h̃_t = W_h x_t + b_h                         candidate
    h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ h̃_t       hidden, also the output

Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs All We Needed?", 2024,
https://arxiv.org/abs/2410.01201.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid

import jaxseq


def update(z_x: Array, h: Array, _: None, extra: None) -> Array:
    x_z, x_h = jnp.split(z_x, 2)
    z = sigmoid(x_z)
    return (1 - z) * h + z * x_h


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    return jaxseq.cell_init(key, D, 2 * H, None, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> Array:
    H = params.b.shape[0] // 2
    return jaxseq.cell_zeros(H, batch, dtype=params.b.dtype)


MINGRU = jaxseq.Cell(update, init, zeros)
