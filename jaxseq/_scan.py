"""Runs a cell over time.

A cell is three pieces (D input width, H hidden width, Z gates times H):

    z_x = x_t w_x + b                   input map
    z_h = h_{t-1} w_h + b_h             recurrent map
    s_t = update(z_x, z_h, s_{t-1})     the equations of the paper

The state `s` is an array `h` or a NamedTuple whose first field is `h`. Only
`update` differs between cells, so whatever runs cells takes it as an argument.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._check import check, check_lengths, check_resets, check_state, check_x

Update = Callable[[Array, Array, Any], Any]
Zeros = Callable[[tuple[int, ...]], Any]


class Maps(NamedTuple):
    """Weights of the two maps of a cell; a bias that is None is not added."""

    w_x: Array  # (D, Z)
    w_h: Array  # (H, Z)
    b: Array | None  # (Z,)
    b_h: Array | None = None  # (Z,)


def state_dtype(dtype: Any) -> Any:
    """The dtype of states and sums: float32 for the 16-bit dtypes, else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def hidden(state: Any) -> Array:
    return jax.tree.leaves(state)[0]


def widen(maps: Maps) -> Maps:
    """Maps in the dtype of the sums, so that gradients are summed in it too."""
    return jax.tree.map(lambda w: w.astype(state_dtype(w.dtype)), maps)


def affine(x: Array, w: Array, b: Array | None) -> Array:
    z = x @ w
    return z if b is None else z + b


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_to(h: Array, dtype: Any) -> Array:
    """Rounds the values of `h` to `dtype`; derivatives pass as they are."""
    return h.astype(dtype).astype(h.dtype)


@round_to.defjvp
def _round_to_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return round_to(*primals, dtype), tangents[0]


def advance(update: Update, maps: Maps, state: Any, x: Array) -> tuple[Any, Array]:
    """One step with widened maps: the new state, and its `h` in the dtype of `x`."""
    h = hidden(state)
    z_x = affine(x.astype(h.dtype), maps.w_x, maps.b)
    rounded = h if h.dtype == x.dtype else round_to(h, x.dtype)
    z_h = affine(rounded, maps.w_h, maps.b_h)
    state = update(z_x, z_h, state)
    return state, hidden(state).astype(x.dtype)


def select(mask: Array | None, on: Any, off: Any) -> Any:
    """`on` where the mask `(...)` is True or None, else `off`; leaves `(..., H)`."""
    if mask is None:
        return on
    return jax.tree.map(lambda a, b: jnp.where(mask[..., None], a, b), on, off)


def lay_out(state: Any, x: Array, others: Any) -> Any:
    """`state` over the devices as the batch of `x` `(..., T, D)`, and as `others`.

    A scan's carry has to go in as it comes out: sharded like the batch on an
    explicit mesh, and varying over the axes of `shard_map` that any input varies
    over. All that is added to `state` is zeros of such a kind.
    """
    dtype = hidden(state).dtype
    zeros = [jnp.zeros_like(a, dtype, shape=()) for a in jax.tree.leaves(others)]
    zeros.append(jnp.zeros_like(x, dtype).sum((-2, -1))[..., None])
    return jax.tree.map(lambda s: sum(zeros, start=s), state)


def run_step(
    update: Update, maps: Maps, zeros: Zeros, state: Any, x: Array
) -> tuple[Any, Array]:
    """Checks the arguments and does one step."""
    x = check_x(x, ("...", maps.w_x.shape[0]), maps.w_x.dtype)
    state = check_state(state, zeros(x.shape[:-1]))
    return advance(update, widen(maps), state, x)


def run(
    update: Update,
    maps: Maps,
    zeros: Zeros,
    x: Array,
    state: Any,
    *,
    lengths: Array | None,
    resets: Array | None,
    reverse: bool,
    implementation: str | None,
) -> tuple[Any, Array]:
    """Checks the arguments and runs over time: `(state, y)`, `y` `(..., T, H)`."""
    x = check_x(x, ("...", "T", maps.w_x.shape[0]), maps.w_x.dtype)
    *batch, T, _ = x.shape
    start = zeros(tuple(batch))
    state = start if state is None else check_state(state, start)
    if lengths is not None:
        lengths = check_lengths(lengths, tuple(batch), T)
    if resets is not None:
        resets = check_resets(resets, (*batch, T))
    ok = implementation in (None, "scan")
    check(ok, "implementation", "None or 'scan'", repr(implementation))

    valid, keep = masks(lengths, resets, T, reverse)
    maps = widen(maps)

    def body(state: Any, inputs: Any) -> tuple[Any, Array]:
        x_t, valid_t, keep_t = inputs
        # padded steps run on zeros, so that no derivative in them is NaN
        old = select(keep_t, state, start)
        new, y_t = advance(update, maps, old, select(valid_t, x_t, 0))
        return select(valid_t, new, state), select(valid_t, y_t, 0)

    inputs = jnp.moveaxis(x, -2, 0), valid, keep
    state = lay_out(state, x, (maps, valid, keep))
    state, y = lax.scan(body, state, inputs, reverse=reverse)
    return state, jnp.moveaxis(y, 0, -2)


def masks(
    lengths: Array | None, resets: Array | None, T: int, reverse: bool
) -> tuple[Array | None, Array | None]:
    """Which steps `(T, ...)` are valid, and which of them go on from the state."""
    valid = None
    if lengths is not None:
        steps = jnp.arange(T, dtype=lengths.dtype)
        valid = steps.reshape(-1, *[1] * lengths.ndim) < lengths
    if resets is None:
        return valid, valid
    first = jnp.moveaxis(resets, -1, 0)
    if valid is not None:
        first &= valid
    if reverse:
        # read backwards, a segment starts just before the next one's first step
        first = jnp.concatenate([first[1:], jnp.zeros_like(first[:1])])
    return valid, ~first if valid is None else ~first & valid
