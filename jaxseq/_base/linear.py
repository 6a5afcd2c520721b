"""Products with 16-bit weights, whose gradients are summed in float32.

The gradient of a 16-bit weight is otherwise a 16-bit array on each device, and XLA sums
those of all devices in that dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxseq._base.dtypes import state_dtype, widened

Map = Callable[..., Array]


def linear(
    a: Array, w: Array, b: Array | None = None, product: Map = jnp.matmul
) -> Array:
    """`a w + b` in the dtype of `a`, where `product(a, w)` may be any bilinear map.

    The weights are in that dtype, or in `state_dtype` of it; the product is computed in
    the dtype of `w`.
    """
    dtype, wide = a.dtype, state_dtype(a.dtype)
    if w.dtype == wide:
        z = product(a.astype(wide), w)
    else:
        z = mapped(partial(_in_dtype_of_w, product), w, a).astype(wide)
    z = z if b is None else z + widened(b)
    return z.astype(dtype)


def _in_dtype_of_w(product: Map, a: Array, w: Array) -> Array:
    return product(a.astype(w.dtype), w)


def mapped(f: Map, w: Array, *args: Array) -> Array:
    """`f(*args, w)`, with the gradient of `w` summed in `state_dtype`.

    `f` is linear in `w` and in each of `args` that is of floats.
    """
    wide = state_dtype(w.dtype)
    if wide == w.dtype:
        return f(*args, w)
    run: Any = _mapped
    return run(f, w, widened(w), *args)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _mapped(f: Any, w: Array, wide: Array, *args: Array) -> Array:
    """`wide` is `w` in the dtype of sums: the gradient is that of `wide` alone."""
    return f(*args, w)


def _differentiated(f: Any, primals: Any, tangents: Any) -> Any:
    (w, wide, *args), (_, d_wide, *d_args) = primals, tangents
    is_zero = lambda d: isinstance(d, SymbolicZero)
    run: Any = _mapped
    out = run(f, w, wide, *args)
    d_out = None if is_zero(d_wide) else f(*args, d_wide).astype(out.dtype)
    for i, d in enumerate(d_args):
        if not is_zero(d):
            d = f(*args[:i], d, *args[i + 1 :], w)
            d_out = d if d_out is None else d_out + d
    return out, jnp.zeros_like(out) if d_out is None else d_out


_mapped.defjvp(_differentiated, symbolic_zeros=True)
