"""What a cell is, and one step of it.

A cell is three pieces (D input width, H hidden width, Z gates times H):

    z_x = x_t w_x + b                   input map
    z_h = h_{t-1} w_h + b_h             recurrent map
    s_t = update(z_x, z_h, s_{t-1})     the equations of the paper

The state `s` is an array `h` or a NamedTuple whose first field is `h`. Only
`update` differs between cells, so whatever runs cells takes it as an argument.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Update = Callable[[Array, Array, Any], Any]
Zeros = Callable[[tuple[int, ...]], Any]


class Maps(NamedTuple):
    """Weights of the two maps of a cell; a bias that is None is not added."""

    w_x: Array  # (D, Z)
    w_h: Array  # (H, Z)
    b: Array | None  # (Z,)
    b_h: Array | None = None  # (Z,)


class Masks(NamedTuple):
    """Which steps are valid, and which of those go on from the state; None is all."""

    valid: Array | None  # (..., T)
    keep: Array | None  # (..., T), False where not valid


def state_dtype(dtype: Any) -> Any:
    """The dtype of states and sums: float32 for the 16-bit dtypes, else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def hidden(state: Any) -> Array:
    return jax.tree.leaves(state)[0]


def widen(maps: Maps) -> Maps:
    """Maps in the dtype of the sums, so that gradients are summed in it too."""
    return jax.tree.map(lambda w: w.astype(state_dtype(w.dtype)), maps)


def affine(x: Array, w: Array, b: Array | None, narrow: bool = False) -> Array:
    """`x w + b` for `x` `(..., D)`, in the dtype of `w`.

    If `narrow` both factors are taken in the dtype of `x`, for matrix units: the
    values of `w` have to be of that dtype.

    As a product of two matrices: with more dimensions the gradient of `w` is a
    product that XLA turns round in memory first, which took 2 to 3 times as long.
    """
    *batch, D = x.shape
    dtype = w.dtype
    x, w = (x, w.astype(x.dtype)) if narrow else (x.astype(dtype), w)
    dot = partial(jnp.matmul, preferred_element_type=dtype)
    if any(jax.typeof(x).sharding.spec):  # a sharded axis cannot always be merged
        z = dot(x, w)
    else:
        z = dot(x.reshape(math.prod(batch), D), w).reshape(*batch, w.shape[1])
    return z if b is None else z + b


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_to(h: Array, dtype: Any) -> Array:
    """Rounds the values of `h` to `dtype`; derivatives pass as they are."""
    return h.astype(dtype).astype(h.dtype)


@round_to.defjvp
def _round_to_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return round_to(*primals, dtype), tangents[0]


def recurrent(maps: Maps, state: Any, dtype: Any, narrow: bool = False) -> Array:
    """The recurrent map `z_h`; it reads `h` rounded to `dtype`, as hardware does."""
    h = hidden(state)
    if h.dtype != dtype:
        h = h.astype(dtype) if narrow else round_to(h, dtype)
    return affine(h, maps.w_h, maps.b_h, narrow)


def select(mask: Array | None, on: Any, off: Any = None) -> Any:
    """`on` `(..., H)` where the mask `(...)` is True or None, else `off` or 0."""
    if mask is None:
        return on
    if off is None:
        off = jax.tree.map(jnp.zeros_like, on)
    return jax.tree.map(lambda a, b: jnp.where(mask[..., None], a, b), on, off)


def output(state: Any, valid: Array | None, dtype: Any) -> Array:
    return select(valid, hidden(state)).astype(dtype)


def make_masks(
    lengths: Array | None, resets: Array | None, T: int, reverse: bool
) -> Masks:
    valid = None
    if lengths is not None:
        valid = jnp.arange(T, dtype=lengths.dtype) < lengths[..., None]
    if resets is None:
        return Masks(valid, valid)
    first = resets if valid is None else resets & valid
    if reverse:
        # read backwards, a segment starts just before the next one's first step
        first = jnp.concatenate(
            [first[..., 1:], jnp.zeros_like(first[..., :1])], axis=-1
        )
    return Masks(valid, ~first if valid is None else ~first & valid)


class Form(NamedTuple):
    """What the pullback of an update depends on."""

    additive: bool  # on z_x and z_h by their sum only
    reads: tuple[bool, ...]  # on which parts of the old state
    saves: tuple[bool, ...]  # those of them that do not follow from y


def _pull(
    update: Update, z_x: Array, z_h: Array, old: Any, d_new: Any
) -> tuple[Array, Array, Any]:
    return jax.vjp(update, z_x, z_h, old)[1](d_new)


# traced once for all steps
pull = jax.jit(_pull, static_argnums=0, inline=True)


def pullback(update: Update, z: Any, state: Any) -> Any:
    """The jaxpr of `pull`, for arrays of one row or their shapes."""
    z, state = jax.tree.map(_row, (z, state))
    return jax.make_jaxpr(partial(_pull, update))(z, z, state, state)


def _row(a: Any) -> Any:
    return jax.ShapeDtypeStruct(a.shape[-1:], a.dtype)


class HoldsArraysError(Exception):
    """An update has arrays that are not its arguments."""


def holds_arrays(update: Update, z: Any, state: Any) -> bool:
    try:
        form(update, z, state, hidden(state).dtype)
    except HoldsArraysError:
        return True
    return False


def form(update: Update, z: Any, state: Any, dtype: Any) -> Form:
    return _form(update, *jax.tree.map(_row, (z, state)), jnp.dtype(dtype))


@lru_cache(maxsize=256)  # an update that holds arrays raises, so it is not kept
def _form(update: Update, z: Any, state: Any, dtype: Any) -> Form:
    closed = pullback(update, z, state)
    if closed.consts:
        raise HoldsArraysError
    jaxpr = closed.jaxpr
    used = {id(v) for e in jaxpr.eqns for v in e.invars} | set(map(id, jaxpr.outvars))
    old = jaxpr.invars[2 : 2 + len(jax.tree.leaves(state))]
    d_x, d_h, *_ = jaxpr.outvars
    reads = tuple(id(v) in used for v in old)
    # the hidden state is y, but for rounding
    rounded = hidden(state).dtype != dtype
    return Form(d_x is d_h, reads, (reads[0] and rounded, *reads[1:]))
