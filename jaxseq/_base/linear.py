"""Linear maps in a 16-bit dtype, with gradients of their weights summed in float32.

Over devices, too: XLA sums a gradient over them in the dtype in which it is formed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from jaxseq._base.dtypes import state_dtype

Map = Callable[..., Array]  # linear in its last argument


def linear(
    a: Array, w: Array, b: Array | None = None, product: Map = jnp.matmul
) -> Array:
    """`a w + b` in the dtype of `a`, for any bilinear product.

    The weights are in that dtype, or in that of sums: then so is the product.
    """
    dtype, wide = a.dtype, state_dtype(a.dtype)
    if w.dtype == wide:
        z = product(a.astype(wide), w)
    else:
        z = mapped(partial(_both, product), w, a).astype(wide)
    z = z if b is None else z + b.astype(wide)
    return z.astype(dtype)


def _both(product: Map, a: Array, w: Array) -> Array:
    return product(a.astype(w.dtype), w)


def mapped(f: Map, w: Array, *args: Array) -> Array:
    """`f(*args, w)`, which is linear in `w`, with a gradient of it in wider sums."""
    wide = state_dtype(w.dtype)
    if wide == w.dtype:
        return f(*args, w)
    run: Any = _mapped
    return run(f, lax.stop_gradient(w), w.astype(wide), *args)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mapped(f: Any, w: Array, wide: Array, *args: Array) -> Array:
    """`wide` is `w`, for the gradients."""
    return f(*args, w)


def _differentiated(f: Any, primals: Any, tangents: Any) -> Any:
    (w, _, *args), (_, d_wide, *d_args) = primals, tangents
    is_zero = lambda d: isinstance(d, SymbolicZero)
    moving = [i for i, d in enumerate(d_args) if not is_zero(d)]

    def of(*some: Array) -> Array:
        whole = list(args)
        for i, a in zip(moving, some, strict=True):
            whole[i] = a
        return f(*whole, w)

    pick = lambda values: [values[i] for i in moving]
    out, d_out = jax.jvp(of, pick(args), pick(d_args)) if moving else (of(), None)
    if not is_zero(d_wide):
        d = f(*args, d_wide).astype(out.dtype)
        d_out = d if d_out is None else d_out + d
    return out, jnp.zeros_like(out) if d_out is None else d_out


_mapped.defjvp(_differentiated, symbolic_zeros=True)
