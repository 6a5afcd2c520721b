"""GRU-D, for series in which values are missing.

    γ_x = exp(-max(0, w_γx ⊙ δ_t + b_γx))                        decay of the input
    γ_h = exp(-max(0, W_γh δ_t + b_γh))                          decay of the state
    x̂_t = m_t ⊙ x_t + (1 - m_t) ⊙ γ_x ⊙ x'_{t-1}                 input, filled in
    x'_t = m_t ⊙ x_t + (1 - m_t) ⊙ x'_{t-1}                      last observed value
    ĥ = γ_h ⊙ h_{t-1}
    r_t = σ(W_r x̂_t + U_r ĥ + V_r m_t + b_r)                     reset gate
    z_t = σ(W_z x̂_t + U_z ĥ + V_z m_t + b_z)                     update gate
    h̃_t = tanh(W x̂_t + U (r_t ⊙ ĥ) + V m_t + b)                  candidate
    h_t = (1 - z_t) ⊙ ĥ + z_t ⊙ h̃_t                              hidden, the output

The input is a tuple `(x, m, delta)` of arrays `(..., T, D)`: the values, of which the
missing ones may be any finite number; the mask, 1 where observed and 0 where missing;
and the time since each variable was last observed. The paper lets a missing value
decay towards the mean of its variable; here x is standardized, so the mean is zero.

Che, Purushotham, Cho, Sontag and Liu, "Recurrent Neural Networks for Multivariate
Time Series with Missing Values", 2018, https://arxiv.org/abs/1606.01865.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import relu, sigmoid
from jax.numpy import exp, tanh

import jaxseq


class GRUDState(NamedTuple):
    h: Array  # (..., H)
    x: Array  # (..., D), the last observed value


class Decays(NamedTuple):
    w_x: Array  # (D,)
    b_x: Array  # (D,)
    b_h: Array  # (H,)
    b: Array  # (3H,), of r, z and the candidate


def update(z_x: Any, state: GRUDState, w_h: Any, p: Decays) -> GRUDState:
    x, m, delta = z_x
    gamma_x = exp(-relu(p.w_x * delta + p.b_x))
    gamma_h = exp(-relu(w_h["gamma"](delta) + p.b_h))
    x_hat = m * x + (1 - m) * gamma_x * state.x
    h = gamma_h * state.h
    x_r, x_z, x_n = jnp.split(w_h["W"](x_hat) + w_h["V"](m) + p.b, 3)
    h_r, h_z = jnp.split(w_h["U_rz"](h), 2)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = tanh(x_n + w_h["U"](r * h))
    return GRUDState((1 - z) * h + z * n, m * x + (1 - m) * state.x)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    w_h = {
        "W": (D, 3 * H),
        "V": (D, 3 * H),
        "U_rz": (H, 2 * H),
        "U": (H, H),
        "gamma": (D, H),
    }
    extra = Decays(*(jnp.zeros(width, dtype) for width in (D, D, H, 3 * H)))
    return jaxseq.cell_init(key, None, None, w_h, extra=extra, dtype=dtype)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> GRUDState:
    W_gamma = params.w_h["gamma"]
    D, H = W_gamma.shape
    return jaxseq.cell_zeros(GRUDState(H, D), batch, dtype=W_gamma.dtype)


GRU_D = jaxseq.Cell(update, init, zeros)
