"""Independently recurrent neural network.

    h_t = relu(W x_t + u ⊙ h_{t-1} + b)         hidden, also the output

Each neuron sees its own past only, through one weight of the vector u, which starts
uniform in [0, 1).

Li, Li, Cook, Zhu and Gao, "Independently Recurrent Neural Network (IndRNN):
Building A Longer and Deeper RNN", 2018, https://arxiv.org/abs/1803.04831, equation 2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jaxseq


def update(z_x: Array, h: Array, _: None, u: Array) -> Array:
    return jax.nn.relu(z_x + u * h)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    key, key_u = jax.random.split(key)
    u = jax.random.uniform(key_u, (H,), dtype)
    return jaxseq.cell_init(key, D, H, None, extra=u, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> Array:
    u = params.extra
    return jaxseq.cell_zeros(u.shape[0], batch, dtype=u.dtype)


INDRNN = jaxseq.Cell(update, init, zeros)
