"""Initial weights, gate by gate, the same for every cell."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_dtype, check_key, check_sizes
from jaxseq._base.dtypes import state_dtype


def init_gates(
    key: Array, D: int, H: int, gates: int, dtype: Any
) -> tuple[Array, Array, Array]:
    """Returns `w_x (D, gates H)`, `w_h (H, gates H)` and `b (gates H,)` of zeros.

    Each gate's block of `w_x` is Glorot uniform and each of `w_h` orthogonal,
    drawn in the dtype of the sums and then rounded.
    """
    check_key(key)
    check_sizes(D=D, H=H)
    check_dtype(dtype, "dtype")
    wide = state_dtype(dtype)
    key_x, key_h = jax.random.split(key)
    glorot, orthogonal = (
        jax.nn.initializers.glorot_uniform,
        jax.nn.initializers.orthogonal,
    )
    w_x = [glorot()(k, (D, H), wide) for k in jax.random.split(key_x, gates)]
    w_h = [orthogonal()(k, (H, H), wide) for k in jax.random.split(key_h, gates)]
    b = jnp.zeros(gates * H, dtype)
    return jnp.hstack(w_x).astype(dtype), jnp.hstack(w_h).astype(dtype), b
