"""Simple recurrent unit.

    f_t = σ(W_f x_t + v_f ⊙ c_{t-1} + b_f)              forget gate
    c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ (W x_t)           cell
    r_t = σ(W_r x_t + v_r ⊙ c_{t-1} + b_r)              reset gate
    h_t = r_t ⊙ c_t + (1 - r_t) ⊙ x_t                   output, with a highway of x

The input goes through the weights and is the highway too: `w_x` is a pair, of which
None hands it on as it is. D equals H.

Lei, Zhang, Wang, Dai and Artzi, "Simple Recurrent Units for Highly Parallelizable
Recurrence", 2018, https://arxiv.org/abs/1709.02755, equations 1 to 4.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid

import jaxseq


class SRUState(NamedTuple):
    h: Array  # (..., H)
    c: Array  # (..., H)


class Vectors(NamedTuple):
    v_f: Array  # (H,)
    v_r: Array  # (H,)
    b_f: Array  # (H,)
    b_r: Array  # (H,)


def update(z_x: Any, state: SRUState, _: None, p: Vectors) -> SRUState:
    z, x = z_x
    x_c, x_f, x_r = jnp.split(z, 3)
    f = sigmoid(x_f + p.v_f * state.c + p.b_f)
    r = sigmoid(x_r + p.v_r * state.c + p.b_r)
    c = f * state.c + (1 - f) * x_c
    return SRUState(r * c + (1 - r) * x, c)


def init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> jaxseq.CellParams:
    if D != H:
        raise ValueError(f"H must be {D}, the width of the highway, got {H}")
    extra = Vectors(*(jnp.zeros(H, dtype) for _ in range(4)))
    params = jaxseq.cell_init(key, D, 3 * H, None, extra=extra, dtype=dtype)
    return params._replace(w_x=(params.w_x, None), b=None)


def zeros(params: jaxseq.CellParams, batch: tuple[int, ...] = ()) -> SRUState:
    v_f = params.extra.v_f
    H = v_f.shape[0]
    return jaxseq.cell_zeros(SRUState(H, H), batch, dtype=v_f.dtype)


SRU = jaxseq.Cell(update, init, zeros)
