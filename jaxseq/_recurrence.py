"""The recurrence with its derivatives, on the fastest path of the platform.

Forward mode, reverse mode and all orders of both come from one rule. The tangents
of a recurrence are a linear map L of those of its inputs, b ↦ (state, y). Written as
the solution v = (b, L b) of the linear system v - (0, L b) = (b, 0), it is what
`lax.custom_linear_solve` takes: L is a plain scan, for forward mode and for
derivatives of the derivative, and Lᵀ is the backward pass of the platform.

The weights are outside L: their tangents reach it as sums over the inputs, and the
transposes of those sums are the few large products that give their gradients.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from jaxseq import _fused
from jaxseq._cell import (
    Form,
    Maps,
    Masks,
    Update,
    affine,
    form,
    hidden,
    round_to,
    select,
)
from jaxseq._fused import Residuals
from jaxseq._scan import scan_tangents


class Settings(NamedTuple):
    update: Update
    reverse: bool
    kernel: bool = True  # whether a TPU runs the kernel
    elsewhere: bool = True  # whether other platforms may run it
    save: bool = False


def tpu_limit(update: Update, z_x: Any, state: Any, dtype: Any) -> str | None:
    """The limit of the TPU kernel that this run would pass, or None."""
    from jaxseq import _tpu  # late, for Pallas takes a while to import

    return _tpu.limit(update, z_x, state, dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def recurrence(
    settings: Settings, maps: Maps, x: Array, state: Any, masks: Masks
) -> tuple[Any, Array, Residuals | None]:
    """Runs widened maps over `x` `(..., T, D)`: the state, `y`, what was saved."""
    update, reverse, save = settings.update, settings.reverse, settings.save

    def plain(*args: Any, cpu: bool) -> Any:
        return _fused.forward(update, *args, reverse=reverse, save=save, cpu=cpu)

    def kernel(maps: Maps, x: Array, state: Any, masks: Masks) -> Any:
        from jaxseq import _tpu

        x = select(masks.valid, x)
        z_x = affine(x, maps.w_x, maps.b, narrow=True)
        flat = _flatten(x.ndim - 2)
        end, y, saved = _tpu.forward(
            update,
            flat(z_x),
            maps.w_h,
            maps.b_h,
            *jax.tree.map(flat, (state, *masks)),
            reverse=reverse,
            dtype=x.dtype,
            save=save,
            elsewhere=settings.elsewhere,
        )
        saved = Residuals(*reversed(saved)) if save else None
        return jax.tree.map(_unflatten(x.shape[:-2]), (end, y, saved))

    return _by_platform(settings, plain, kernel, maps, x, state, masks)


def _by_platform(settings: Settings, plain: Any, kernel: Any, *args: Any) -> Any:
    """`plain` or `kernel`, as the platform that this is lowered for will have it."""
    if not settings.elsewhere:
        return kernel(*args)
    own = {"cpu": partial(plain, cpu=True)}  # every branch is traced, used or not
    if settings.kernel:
        own["tpu"] = kernel
    return lax.platform_dependent(*args, **own, default=partial(plain, cpu=False))


def _flatten(batch: int) -> Any:
    """Merges `batch` axes in front into one."""

    def flat(a: Array) -> Array:
        if batch == 1:
            return a
        return a.reshape(math.prod(a.shape[:batch]), *a.shape[batch:])

    return flat


def _unflatten(batch: tuple[int, ...]) -> Any:
    return lambda a: a if len(batch) == 1 else a.reshape(*batch, *a.shape[1:])


def _jvp(settings: Settings, primals: Any, tangents: Any) -> Any:
    update, reverse = settings.update, settings.reverse
    maps, x, state, masks = primals
    d_maps, d_x, d_state, _ = tangents
    end, y, kept = recurrence(settings._replace(save=True), *primals)
    dtype = x.dtype

    # everything at steps that are not valid is cut off by the masks
    x = select(masks.valid, x)
    z_x = affine(x, maps.w_x, maps.b)
    h = previous(y, hidden(state), masks, reverse)
    saved = complete(kept, form(update, z_x, state, dtype), h)
    d_z_x = [_product(d_x, maps.w_x), _product(x, d_maps.w_x), d_maps.b]
    d_z_h = [_product(h, d_maps.w_h), d_maps.b_h]
    b = (
        _total(z_x, d_z_x),
        _total(z_x, d_z_h),
        jax.tree.map(instantiate, state, d_state),
    )

    def tangent(b: Any) -> Any:
        return scan_tangents(update, maps, z_x, state, masks, reverse, dtype, b)

    def pullback(d_end: Any, d_y: Array) -> Any:
        def plain(*args: Any, cpu: bool) -> Any:
            return _fused.backward(update, *args, reverse=reverse, cpu=cpu)

        def kernel(
            maps: Maps, saved: Residuals, masks: Masks, d_end: Any, d_y: Array
        ) -> Any:
            from jaxseq import _tpu

            flat = _flatten(d_y.ndim - 2)
            saved, masks, d_end, d = jax.tree.map(flat, (saved, masks, d_end, d_y))
            old = saved.old, saved.z
            d = _tpu.backward(
                update,
                maps.w_h,
                old,
                *masks,
                d_end,
                d,
                reverse=reverse,
                dtype=dtype,
                elsewhere=settings.elsewhere,
            )
            return jax.tree.map(_unflatten(d_y.shape[:-2]), d)

        args = maps, saved, masks, d_end, d_y
        return _by_platform(settings, plain, kernel, *args)

    constants = z_x, maps.w_h, maps.b_h, state
    d_end, d_y = linear(tangent, pullback, constants, b, (end, y))
    # only `pullback` reads what was saved, and it is never differentiated
    out = end, y, kept if settings.save else None
    return out, (d_end, d_y, jax.tree.map(jnp.zeros_like, out[2]))


recurrence.defjvp(_jvp, symbolic_zeros=True)


def complete(saved: Residuals, kind: Form, h: Array) -> Residuals:
    """With `h` `(..., T, H)` of the old states, if it is read and was not saved."""
    follows = kind.reads[0] and not kind.saves[0]
    return saved._replace(old=(h, *saved.old[1:])) if follows else saved


def linear(f: Any, transpose: Any, constants: Any, b: Any, out: Any) -> Any:
    """`f(b)` for a linear `f`, whose transpose is `transpose(*cotangents of out)`.

    `f` depends on `constants`. What custom_linear_solve transposes may not be
    constant in part, so all of v gets to depend on all of b, and all of the linear
    system on all constants, by paths that are never taken and that XLA removes.
    """

    def matvec(v: Any) -> Any:
        b, r = v
        v = b, jax.tree.map(jnp.subtract, r, f(b))
        return jax.tree.map(lambda a: jnp.where(False, a * known.astype(a.dtype), a), v)

    def solve(_: Any, v: Any) -> Any:
        b, r = v
        return b, jax.tree.map(jnp.add, r, f(b))

    def transpose_solve(_: Any, v: Any) -> Any:
        b, r = v
        return jax.tree.map(jnp.add, b, tuple(transpose(*r))), r

    zero = jnp.zeros((), hidden(out[0]).dtype)
    known, unknown = (
        sum((jnp.sum(a).astype(zero.dtype) for a in jax.tree.leaves(tree)), start=zero)
        for tree in (constants, b)
    )
    v = b, jax.tree.map(jnp.zeros_like, out)
    v = jax.tree.map(lambda a: jnp.where(False, unknown.astype(a.dtype), a), v)
    return lax.custom_linear_solve(matvec, v, solve, transpose_solve)[1]


def previous(y: Array, h: Array, masks: Masks, reverse: bool) -> Array:
    """`h_{t-1}` `(..., T, H)` as the product with w_h reads it, from `y` and h_0."""
    valid, keep = masks
    rounded = h if y.dtype == h.dtype else round_to(h, y.dtype)
    first, y = rounded[..., None, :], y.astype(h.dtype)
    if not reverse:
        h = jnp.concatenate([first, y[..., :-1, :]], -2)
    elif valid is None:
        h = jnp.concatenate([y[..., 1:, :], first], -2)
    else:
        # the step read first is the last valid one, wherever it is
        after = jnp.concatenate([valid[..., 1:], jnp.zeros_like(valid[..., :1])], -1)
        h = jnp.concatenate([y[..., 1:, :], first], -2)
        h = jnp.where(after[..., None], h, first)
    return select(keep, h)


def _product(x: Any, w: Any) -> Any:
    """`x w`, where one of the two is a tangent; None for zero."""
    if isinstance(x, SymbolicZero) or isinstance(w, SymbolicZero):
        return None
    return affine(x, w, None)


def _total(like: Array, terms: list[Any]) -> Array:
    some = [t for t in terms if t is not None and not isinstance(t, SymbolicZero)]
    return sum(some, start=jnp.zeros_like(like))


def instantiate(primal: Array, tangent: Any) -> Array:
    zero = isinstance(tangent, SymbolicZero)
    return jnp.zeros_like(primal) if zero else tangent
