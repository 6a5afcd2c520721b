"""From a public function's arguments to the path that runs it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._cell import (
    Maps,
    Masks,
    Update,
    Zeros,
    affine,
    hidden,
    holds_arrays,
    make_masks,
    recurrent,
    state_dtype,
    widen,
)
from jaxseq._check import (
    check,
    check_lengths,
    check_remat,
    check_resets,
    check_state,
    check_x,
)
from jaxseq._recurrence import Settings, recurrence, tpu_limit
from jaxseq._remat import over_pieces
from jaxseq._scan import scan


def run_step(
    update: Update, maps: Maps, zeros: Zeros, state: Any, x: Array
) -> tuple[Any, Array]:
    """Checks the arguments and does one step."""
    x = check_x(x, ("...", maps.w_x.shape[0]), maps.w_x.dtype)
    state = check_state(state, zeros(x.shape[:-1]))
    maps = widen(maps)
    z_x = affine(x, maps.w_x, maps.b)
    state = update(z_x, recurrent(maps, state, x.dtype), state)
    return state, hidden(state).astype(x.dtype)


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
    remat: int | None,
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
    ok = implementation in (None, "scan", "pallas")
    check(ok, "implementation", "None, 'scan' or 'pallas'", repr(implementation))

    if remat is not None:
        remat = check_remat(remat)
    Z = maps.w_h.shape[1]
    z = jax.ShapeDtypeStruct((*batch, T, Z), state_dtype(maps.w_h.dtype))
    # an activation may hold arrays to be differentiated by, which no rule sees
    holds = holds_arrays(update, z, state)
    if remat is not None:
        got = f"{remat} with an activation that holds arrays"
        check(not holds, "remat", "None", got)
    settings = None
    if implementation == "pallas" or (implementation is None and T > 0 and not holds):
        limit = tpu_limit(update, z, state, x.dtype)
        only = implementation == "pallas"
        check(not only or limit is None, "implementation", "None or 'scan' here", limit)
        settings = Settings(update, reverse, limit is None, not only)
    over = over_time if holds else traced_once
    return over(update, settings, reverse, remat, maps, x, state, lengths, resets)


def over_time(
    update: Update,
    settings: Settings | None,
    reverse: bool,
    remat: int | None,
    maps: Maps,
    x: Array,
    state: Any,
    lengths: Array | None,
    resets: Array | None,
) -> tuple[Any, Array]:
    """Runs over time, by the plain scan if there are no settings of another path."""
    T = x.shape[-2]
    masks = make_masks(lengths, resets, T, reverse)
    maps = widen(maps)
    state = lay_out(state, x, (maps, masks))

    def plain(maps: Maps, x: Array, state: Any, masks: Masks) -> tuple[Any, Array]:
        return scan(update, maps, x, state, masks, reverse)

    def fast(*args: Any) -> tuple[Any, Array]:
        return recurrence(settings, *args)[:2]

    piece = plain if settings is None else fast
    if remat is None or remat >= T:
        return piece(maps, x, state, masks)
    maps = vary(maps, (x, state, masks))
    return over_pieces(piece, plain, remat, reverse, maps, x, state, masks)


# a second call with the same shapes and options is neither traced nor compiled
traced_once = jax.jit(over_time, static_argnums=(0, 1, 2, 3))


def lay_out(state: Any, x: Array, others: Any) -> Any:
    """`state` over the devices as the batch of `x` `(..., T, D)`, and as `others`.

    A loop's carry has to go in as it comes out: sharded like the batch on an
    explicit mesh, and varying over the axes of `shard_map` that any input varies
    over. All that is added to `state` is zeros of such a kind.
    """
    dtype = hidden(state).dtype
    zero = jnp.zeros_like(x, dtype).sum((-2, -1))[..., None]
    return vary(jax.tree.map(lambda s: s + zero, state), others)


def vary(tree: Any, others: Any) -> Any:
    """`tree`, varying over the axes of `shard_map` that any of `others` varies over."""

    def one(a: Array) -> Array:
        leaves = jax.tree.leaves(others)
        return sum((jnp.zeros_like(b, a.dtype, shape=()) for b in leaves), start=a)

    return jax.tree.map(one, tree)
