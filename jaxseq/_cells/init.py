"""Weights and states that cells begin with."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_dtype, check_key, check_sizes, check_value
from jaxseq._base.dtypes import state_dtype
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths


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
    key_x, key_h = jax.random.split(key)
    orthogonal, wide = jax.nn.initializers.orthogonal(), state_dtype(dtype)
    w_h = [orthogonal(k, (H, H), wide) for k in jax.random.split(key_h, gates)]
    w_x, b = glorot_gates(key_x, D, H, gates, dtype), jnp.zeros(gates * H, dtype)
    return w_x, jnp.hstack(w_h).astype(dtype), b


def glorot_gates(key: Array, D: int, H: int, gates: int, dtype: Any) -> Array:
    """Returns `w_x (D, gates H)`, each gate's block Glorot uniform."""
    glorot, wide = jax.nn.initializers.glorot_uniform(), state_dtype(dtype)
    w_x = [glorot(k, (D, H), wide) for k in jax.random.split(key, gates)]
    return jnp.hstack(w_x).astype(dtype)


def cell_init(
    key: Array,
    D: int | None,
    Z: int | None,
    w_h: Any,
    *,
    extra: Any = None,
    dtype: Any = jnp.float32,
) -> CellParams:
    """Draws the weights of a cell.

    Args:
        key: a random key.
        D: input width; None for a cell without `w_x`.
        Z: width of the input map; None with it.
        w_h: the shapes of the matrices, `(I, O)` or `(N, I / N, O / N)` for N blocks
            along the diagonal of one, or a tree of such; None for a cell without.
        extra: the cell's other weights, an array or any tree of arrays, as they are.
        dtype: dtype of the weights.

    Returns:
        `CellParams`: `w_x` Glorot uniform as the one matrix `(D, Z)` that it is (that
        of `lstm_init` is so for each gate, and so larger), matrices orthogonal in
        blocks of as many columns as they have rows, `b` zero.

    Raises:
        ValueError: if a size is less than 1 or `dtype` is not a float.

    Example:
        >>> params = jaxseq.cell_init(jax.random.key(0), 3, 16, (8, 16))
        >>> params.w_x.shape, params.w_h.shape, params.b.shape
        ((3, 16), (8, 16), (16,))

    For the sources of the two distributions see `lstm_init`.
    """
    check_dtype(dtype, "dtype")
    check_key(key)
    check((D is None) == (Z is None), "Z", "None if D is, else a size", Z)
    for a in jax.tree.leaves(extra):
        ok = hasattr(a, "shape") or isinstance(a, (int, float))
        check(ok, "extra", "an array, or a tree of such", type(a).__name__)
    key_x, key_h = jax.random.split(key)
    wide = state_dtype(dtype)
    w_x = b = None
    if D is not None:
        check_sizes(D=D, Z=Z)
        w_x = jax.nn.initializers.glorot_uniform()(key_x, (D, Z), wide).astype(dtype)
        b = jnp.zeros(Z, dtype)
    is_shape = lambda a: type(a) is tuple and all(hasattr(n, "__index__") for n in a)
    shapes, tree = jax.tree.flatten(w_h, is_leaf=is_shape)
    keys = jax.random.split(key_h, max(1, len(shapes)))
    drawn = [
        _recurrent(k, shape, wide).astype(dtype)
        for k, shape in zip(keys, shapes, strict=False)
    ]
    return CellParams(w_x, tree.unflatten(drawn), b, apart(extra))


def _recurrent(key: Array, shape: Any, dtype: Any) -> Array:
    ok = type(shape) is tuple and len(shape) in (2, 3)
    check_value(ok, "w_h", "shapes (I, O) or (N, I / N, O / N)", shape)
    check_sizes(**{f"w_h {shape}": n for n in shape})
    *N, I, O = shape
    orthogonal = jax.nn.initializers.orthogonal()

    def one(key: Array) -> Array:
        keys = jax.random.split(key, -(-O // I))
        gates = [
            orthogonal(k, (I, min(I, O - i * I)), dtype) for i, k in enumerate(keys)
        ]
        return jnp.hstack(gates)

    if not N:
        return one(key)
    return jnp.stack([one(k) for k in jax.random.split(key, N[0])])


def cell_zeros(
    widths: Any, batch: int | tuple[int, ...] = (), *, dtype: Any = jnp.float32
) -> Any:
    """Returns a state of zeros.

    Args:
        widths: the width of the state, or a NamedTuple of the widths of its parts.
        batch: axes in front, a tuple or one size.
        dtype: dtype of the weights; the state is float32 for the 16-bit dtypes.

    Returns:
        A state like `widths`, with arrays `(*batch, width)`.

    Raises:
        ValueError: if a width is less than 1 or `dtype` is not a float.

    Example:
        >>> jaxseq.cell_zeros(8, 2).shape
        (2, 8)
    """
    check_dtype(dtype, "dtype")
    return zeros_like_widths(widths, batch, dtype)
