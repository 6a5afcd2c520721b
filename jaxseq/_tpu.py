"""The steps that a TPU kernel runs, forward and backward, and the limits of both.

They differ only in the step that the kernel of `_tpu_scan.py` is given, and cells only
in the `update` that this step traces, itself or its `jax.vjp`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import jaxprs_in_params

from jaxseq._cell import Form, Update, form, hidden, pull, pullback
from jaxseq._tpu_scan import LANES, ROWS, Chip, chip, count, over_time, strip, tiles

# of updates and their derivatives; all of them pointwise, and known to compile
PRIMITIVES = frozenset(
    "abs add add_any and broadcast_in_dim clamp concatenate convert_element_type cos"
    " custom_jvp_call div eq exp ge gt integer_pow jit le log log1p logistic lt max min"
    " mul ne neg not one_minus_square or pad select_n sign sin slice split sqrt square"
    " stop_gradient sub tanh".split()
)


def limit(
    update: Update, z_x: Any, state: Any, dtype: Any, on: Chip | None = None
) -> str | None:
    """The limit of the kernels that a run would pass, or None.

    Args:
        update: the equations of the cell.
        z_x: input map, (..., T, Z), or its shape.
        state: initial state, leaves (..., H), or their shapes.
        dtype: dtype of the inputs.
        on: the TPU; `chip()` if None.
    """
    H, Z, on = hidden(state).shape[-1], z_x.shape[-1], on or chip()
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        return f"{jnp.dtype(dtype)} is neither float32 nor bfloat16"
    if H % LANES:
        return f"H = {H} is not a multiple of {LANES}"
    if 0 in z_x.shape:
        return f"an input map of shape {z_x.shape} is empty"
    jaxpr = pullback(update, z_x, state)
    if jaxpr.consts:
        return "the update holds arrays that are not its arguments"
    if unknown := _primitives(jaxpr.jaxpr) - PRIMITIVES:
        return f"no kernel has {', '.join(sorted(unknown))}"
    # the larger of the two, as if nothing could be left out of it
    z, state = strip((z_x, state), ROWS)
    w_h = jax.ShapeDtypeStruct((H, Z), dtype)
    bits = jax.ShapeDtypeStruct((ROWS, 1), jnp.int32)
    x = (z, z), tuple(jax.tree.leaves(state)), hidden(state), bits
    size = count(partial(_backward_step, update, dtype), [w_h], state, x)
    if tiles(1, 1, size, on) is None:
        need, have = (f"{n / 2**20:.3g} MiB" for n in (size.total(ROWS, 1), on.vmem))
        return f"weights and blocks of {need} do not fit into {have} of VMEM"
    return None


def _primitives(jaxpr: Any) -> set[str]:
    inner = (j for e in jaxpr.eqns for j in jaxprs_in_params(e.params))
    names = {e.primitive.name for e in jaxpr.eqns if not _is_idle(e)}
    return names.union(*map(_primitives, inner))


def _is_idle(e: Any) -> bool:
    """Whether it only says how an array lies on a mesh."""
    name, params = e.primitive.name, e.params
    same = name == "reshape" and e.invars[0].aval.shape == params["new_sizes"]
    return same or name == "reshard"


def forward(
    update: Update,
    z_x: Array,
    w_h: Array,
    b_h: Array | None,
    state: Any,
    valid: Array | None,
    keep: Array | None,
    *,
    reverse: bool,
    dtype: Any,
    save: bool,
    elsewhere: bool = False,
) -> tuple[Any, Array, Any]:
    """Runs a cell over time.

    Args:
        update: the equations of the cell.
        z_x: input map, (B, T, Z).
        w_h: recurrent weights, (H, Z), with values of `dtype`.
        b_h: bias of the recurrent map, (Z,), or None.
        state: initial state, leaves (B, H).
        valid: steps that are run, (B, T), or None for all.
        keep: steps that go on from the state, (B, T), or None for all.
        reverse: whether to run from the last step to the first.
        dtype: dtype of y, and of both factors of the recurrent product.
        save: whether to return residuals.
        elsewhere: whether what is no TPU may run it, as a plain scan.

    Returns:
        `(state, y, residuals)`: the final state, y (B, T, H), and `(old, z)` or
        None. `old` has the states before each step, (B, T, H), None for a part that
        `backward` does not read and for h if y is it; `z` is (z_x, z_h), or
        (z_x + z_h,) where the update depends on their sum only.
    """
    kind = form(update, z_x, state, dtype) if save else None
    weights = [w_h.astype(dtype)] + ([] if b_h is None else [b_h[None]])
    step = partial(_forward_step, update, dtype, kind)
    x = z_x, _bits(valid, keep)
    state, (y, saved) = over_time(step, weights, state, x, reverse, elsewhere)
    if kind is None:
        return state, y, None
    old, z = saved
    return state, y, (old, (z,) if kind.additive else (z_x, z))


def backward(
    update: Update,
    w_h: Array,
    residuals: Any,
    valid: Array | None,
    keep: Array | None,
    d_state: Any,
    d_y: Array,
    *,
    reverse: bool,
    dtype: Any,
    elsewhere: bool = False,
) -> tuple[Array, Array, Any]:
    """From the gradients of the state and y those of z_x, z_h and the first state.

    If z_x and z_h come in by their sum only, their gradients are one array.
    """
    old, z = residuals
    step = partial(_backward_step, update, dtype)
    x = z, old, d_y, _bits(valid, keep)
    weights = [w_h.astype(dtype)]
    d_state, d_z = over_time(step, weights, d_state, x, not reverse, elsewhere)
    return d_z[0], d_z[-1], d_state


def _bits(valid: Array | None, keep: Array | None) -> Array | None:
    """Both masks in one (B, T, 1): in VMEM its last axis is as long as 128."""
    if valid is None and keep is None:
        return None
    bits = (1 if m is None else m.astype(jnp.int32) for m in (valid, keep))
    return sum(b << k for k, b in enumerate(bits))[..., None]  # pyright: ignore


def _select(bits: Array | None, k: int, on: Any, off: Any = None) -> Any:
    """`on` where bit `k` is set, else `off` or 0; leaves (B, H)."""
    if bits is None:
        return on
    off = jax.tree.map(jnp.zeros_like, on) if off is None else off
    # widened as integers, for what is compared there has to be as wide as `on`
    bit = lambda a: jnp.broadcast_to(bits, a.shape) & (1 << k) != 0
    return jax.tree.map(lambda a, b: jnp.where(bit(a), a, b), on, off)


def _product(a: Array, b: Array, axis: int) -> Array:
    """a (B, K) times b, over `axis` of it; in float32 by the default precision."""
    asked = jax.config.jax_default_matmul_precision  # pyright: ignore
    least = asked in (None, "default", "fastest", "bfloat16")
    # of the precisions between the two the kernel has none
    exact = a.dtype == jnp.float32 and not least
    return lax.dot_general(
        a,
        b,
        (((1,), (axis,)), ((), ())),
        precision=lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _forward_step(
    update: Update, dtype: Any, kind: Form | None, weights: Any, state: Any, x: Any
) -> tuple[Any, Any]:
    (w_h, *b_h), (z_x, bits) = weights, x
    old = _select(bits, 1, state)
    z_h = sum(b_h, start=_product(hidden(old).astype(dtype), w_h, 0))
    new = update(z_x, z_h, old)
    y = _select(bits, 0, hidden(new)).astype(dtype)
    saved = None
    if kind is not None:
        parts = zip(jax.tree.leaves(old), kind.saves, strict=True)
        z = z_x + z_h if kind.additive else z_h
        saved = tuple(s if saved else None for s, saved in parts), z
    return _select(bits, 0, new, state), (y, saved)


def _backward_step(
    update: Update, dtype: Any, weights: Any, d_state: Any, x: Any
) -> tuple[Any, Any]:
    (w_h,), (z, old, d_y, bits) = weights, x
    (d_h, *others), tree = jax.tree.flatten(d_state)
    z_x, z_h = (*z, jnp.zeros_like(z[0]))[:2]
    old = tree.unflatten([jnp.zeros_like(d_h) if s is None else s for s in old])
    d_new = tree.unflatten([d_h + d_y.astype(d_h.dtype), *others])
    *d_z, d_old = pull(update, z_x, z_h, old, _select(bits, 0, d_new))
    d_h, *others = jax.tree.leaves(d_old)
    # rounded to the dtype of w_h, as h was: the matrix unit takes two of a kind
    d_h += _product(d_z[-1].astype(dtype), w_h, 1)
    d_old = _select(bits, 1, tree.unflatten([d_h, *others]))
    return _select(bits, 0, d_old, d_state), tuple(d_z[: len(z)])
