"""The products of a cell: of its inputs with `w_x`, of what an update reads with `w_h`.

A matrix is `(I, O)`, or N blocks `(N, I, O)` along the diagonal of one, or N blocks
`(N, P, I, Q, O)` of P by Q gates: what it reads is by gate, then by block `(P, N, I)`,
and so is what it gives, `(Q, N, O)`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._engine.step import Step
from jaxseq._engine.types import Weights
from jaxseq._engine.update import width_out

MANY_BLOCKS = 16  # from which on a product for each is too large a program


def times(
    a: Array, w: Array, narrow: Any = None, alone: bool = True, precision: Any = None
) -> Array:
    """`a w` for `a` `(..., I)`, in the dtype of `w`.

    With `narrow` both factors are taken in that dtype, for matrix units: the values
    of `w` have to be of it. `alone` is False for a program of several devices.
    """
    dtype = w.dtype
    low = dtype if narrow is None else narrow
    dot = partial(jnp.matmul, precision=precision, preferred_element_type=dtype)
    a, w = a.astype(low), w.astype(low)
    if w.ndim == 3:
        N, I, _ = w.shape
        rows = a.reshape(*a.shape[:-1], N, 1, I)
        return dot(rows, w).reshape(*a.shape[:-1], width_out(w))
    if w.ndim == 5:
        N, P, I, Q, O = w.shape
        batch = a.shape[:-1]
        rows = jnp.moveaxis(a.reshape(*batch, P, N, I), -3, -2)
        blocks = w.reshape(N, P * I, Q * O)
        z = dot(rows.reshape(*batch, N, 1, P * I), blocks).reshape(*batch, N, Q, O)
        return jnp.moveaxis(z, -2, -3).reshape(*batch, Q * N * O)
    *batch, I = a.shape
    # with more dimensions the gradient of `w` is a product that XLA turns round in
    # memory first, which took 2 to 3 times as long
    if len(batch) < 2 or not alone or not jax.typeof(a).sharding.mesh.empty:
        return dot(a, w)  # to merge a sharded axis would gather it first
    return dot(a.reshape(math.prod(batch), I), w).reshape(*batch, w.shape[1])


def times_by_block(a: Array, w: Array, precision: Any = None) -> Array:
    """`times`, with blocks one by one: a faster gradient of `w` over many steps.

    One product of all blocks is transposed first, which took up to 4 times as long.
    """
    N, batch = w.shape[0], a.shape[:-1]
    rows = any(is_symbolic_dim(n) or n != 1 for n in batch[1:])
    # where only time is batched, the blocks may be the rows of a batch, which may be
    # split over devices
    if w.ndim == 2 or is_symbolic_dim(N) or N > MANY_BLOCKS or not rows:
        return times(a, w, precision=precision)
    w = w[:, None, :, None] if w.ndim == 3 else w
    _, P, I, Q, O = w.shape
    a = a.reshape(*batch, P, N, I)
    blocks = [
        times(
            a[..., n, :].reshape(*batch, P * I),
            w[n].reshape(P * I, Q * O),
            precision=precision,
        )
        for n in range(N)
    ]
    z = jnp.stack([z.reshape(*batch, Q, O) for z in blocks], -2)
    return z.reshape(*batch, Q * N * O)


def transposed(w: Array) -> Array:
    return w.transpose(0, 3, 4, 1, 2) if w.ndim == 5 else jnp.swapaxes(w, -1, -2)


def project(
    step: Step, weights: Weights, x: Any, narrow: Any = None, alone: bool = True
) -> tuple[Array, ...]:
    """The input maps `x w_x + b`."""

    def one(x: Array, w: Array | None, b: Array | None, precision: Any) -> Array:
        if w is None:
            return x
        z = times(x, w, narrow, alone, precision)
        return plus(z, b)

    parts = zip(x, weights.w_x, weights.b, step.map_precisions, strict=True)
    return tuple(one(*part) for part in parts)


def plus(z: Array, b: Array | None) -> Array:
    """`z + b` of a bias, also where JAX is told not to add axes by itself."""
    return z if b is None else z + jnp.expand_dims(b, tuple(range(z.ndim - b.ndim)))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_to(h: Array, dtype: Any) -> Array:
    """Rounds the values of `h` to `dtype`; derivatives pass as they are."""
    if dtype is None or h.dtype == dtype:
        return h
    return h.astype(dtype).astype(h.dtype)


@round_to.defjvp
def _(dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return round_to(*primals, dtype), tangents[0]
