"""A cell over time in chunks of steps: the fast path in plain JAX.

The steps of a chunk are written out, so that the loop and the projection of the
input are paid for once a chunk. Neither function is differentiated: `backward` is
the transpose of the derivative of `forward`, and `_recurrence.py` joins the two.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxseq._cell import (
    Maps,
    Masks,
    Update,
    affine,
    form,
    hidden,
    output,
    pull,
    recurrent,
    select,
)

# steps of a chunk; with gradients each is more code, and more to compile
FORWARD_STEPS, STEPS = 8, 4
# rows of x that are projected at a time, at least: fewer make a slow product
PROJECTED_ROWS = 64


class Residuals(NamedTuple):
    """What `backward` needs of every step."""

    z: tuple[Array, ...]  # z_x and z_h, or their sum if additive; (..., T, Z)
    old: tuple[Array | None, ...]  # parts of the old state; (..., T, H)


def forward(
    update: Update,
    maps: Maps,
    x: Array,
    state: Any,
    masks: Masks,
    *,
    reverse: bool,
    save: bool,
    cpu: bool,
) -> tuple[Any, Array, Residuals | None]:
    """Runs widened maps over time: the state, `y`, and the residuals if `save`."""
    T, H, Z = x.shape[-2], *maps.w_h.shape
    x = select(masks.valid, x)
    h = hidden(state)
    kind = form(update, zeros(h, 1, Z), state, x.dtype)
    saved, late = None, None
    if save:
        # where only the sum is kept, b costs less with z_h than as a pass over z_x
        b, late = (None, maps.b) if kind.additive else (maps.b, None)
        z_x = affine(x, maps.w_x, b, narrow=not cpu)
        z = (z_x,) if kind.additive else (z_x, zeros(h, T, Z))
        saved = Residuals(z, tuple(zeros(h, T, H) if r else None for r in kind.saves))
    rows = _slabs(h, Z, save) if cpu else [slice(None)]
    call = outlined if cpu and save else lambda f: f

    def step(now: Chunk, z_h: Array, old: Any, state: Any, k: int, r: slice) -> Any:
        (z_x, *_), masks = now.at(k, r)
        z_h = z_h if late is None else z_h + late
        new = select(masks.valid, update(z_x, z_h, old), state)
        z = (z_x + z_h,) if kind.additive else (None, z_h)
        return new, output(new, masks.valid, x.dtype), z if save else None

    def project(start: Any, size: int) -> Array:
        return affine(cut(x, start, size), maps.w_x, maps.b, narrow=not cpu)

    def block(carry: Any, start: Any, size: int) -> Any:
        z_x = project(start, size)

        def part(carry: Any, at: Any, size: int) -> Any:
            # a call, for gates that read z_x at an offset do not vectorise
            now = outlined(partial(cut, size=size))(z_x, at)
            return chunk(carry, start + at, size, now)

        return _over_chunks(part, carry, size, K, reverse)

    def chunk(carry: Any, start: Any, size: int, z_x: Array | None = None) -> Any:
        states, y, saved = carry
        if saved is not None:
            z_x = cut(saved.z[0], start, size)
        elif z_x is None:
            z_x = project(start, size)
        now = Chunk((z_x,), cut_masks(masks, start, size))
        states = list(states)
        ys: list[list[Any]] = [[None] * size for _ in rows]
        for k in range(size)[:: -1 if reverse else 1]:
            for i, r in enumerate(rows):
                old = select(now.at(k, r)[1].keep, states[i])
                z_h = recurrent(maps, old, x.dtype, narrow=not cpu)
                f = call(partial(step, k=k, r=r))
                states[i], ys[i][k], z = f(now, z_h, old, states[i])
                if saved is not None:
                    old = jax.tree.leaves(old)
                    place = partial(put, t=start + k, r=r)
                    saved = Residuals(
                        tuple(map(place, saved.z, z)),
                        tuple(map(place, saved.old, old)),
                    )
        y_chunk = _join([jnp.stack(y_r, -2) for y_r in ys])
        y = lax.dynamic_update_slice_in_dim(y, y_chunk, start, y.ndim - 2)
        return states, y, saved

    states = [jax.tree.map(partial(_rows, r=r), state) for r in rows]
    carry = states, zeros(h, T, H).astype(x.dtype), saved
    K = STEPS if save else FORWARD_STEPS
    chunks = max(1, PROJECTED_ROWS // (K * max(1, math.prod(h.shape[:-1]))))
    if cpu and not save and chunks > 1 and T > K:
        states, y, saved = _over_chunks(block, carry, T, chunks * K, reverse)
    else:
        states, y, saved = _over_chunks(chunk, carry, T, K, reverse)
    return _join(states), y, saved


def backward(
    update: Update,
    maps: Maps,
    saved: Residuals,
    masks: Masks,
    d_state: Any,
    d_y: Array,
    *,
    reverse: bool,
    cpu: bool,
) -> tuple[Array, Array, Any]:
    """From the gradients of the state and `y` those of z_x, z_h and the first state.

    The gradients of z take the place of z itself. If z_x and z_h come in by their
    sum only, the two gradients are one array.
    """
    T, Z = saved.z[0].shape[-2:]
    h = hidden(d_state)
    tree = jax.tree.structure(d_state)
    rows = _slabs(h, Z, True) if cpu else [slice(None)]
    call = outlined if cpu else lambda f: f
    w_h = maps.w_h.T

    def step(now: Chunk, d_state: Any, k: int, r: slice) -> Any:
        (d_y, z, old), masks = now.at(k, r)
        z_x, z_h = (*z, jnp.zeros_like(z[0]))[:2]
        zero = jnp.zeros_like(hidden(d_state))
        old = tree.unflatten([zero if a is None else a for a in old])
        d_h, *others = jax.tree.leaves(d_state)
        d_new = tree.unflatten([d_h + d_y.astype(d_h.dtype), *others])
        *d_z, d_old = pull(update, z_x, z_h, old, select(masks.valid, d_new))
        # a step that is not valid hands its gradient on
        rest = None if masks.valid is None else select(~masks.valid, d_state)
        return d_z[: len(z)], d_old, rest

    def chunk(carry: Any, start: Any, size: int) -> Any:
        d_states, d_z = carry
        parts = d_y, d_z, saved.old
        now = Chunk(
            jax.tree.map(lambda a: cut(a, start, size), parts),
            cut_masks(masks, start, size),
        )
        d_states = list(d_states)
        for k in range(size)[:: 1 if reverse else -1]:
            for i, r in enumerate(rows):
                d_z_t, d_old, rest = call(partial(step, k=k, r=r))(now, d_states[i])
                d_h, *others = jax.tree.leaves(d_old)
                d_old = tree.unflatten([d_h + d_z_t[-1] @ w_h, *others])
                d_states[i] = select(now.at(k, r)[1].keep, d_old, rest)
                place = partial(put, t=start + k, r=r)
                d_z = tuple(map(place, d_z, d_z_t))
        return d_states, d_z

    d_states = [jax.tree.map(partial(_rows, r=r), d_state) for r in rows]
    d_states, d_z = _over_chunks(chunk, (d_states, saved.z), T, STEPS, not reverse)
    return d_z[0], d_z[-1], _join(d_states)


def zeros(h: Array, T: int, F: int) -> Array:
    """Zeros `(..., T, F)`, over the devices as `h` `(..., H)`."""
    return jnp.broadcast_to(jnp.zeros_like(h)[..., None, :1], (*h.shape[:-1], T, F))


def outlined(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as a call that XLA does not inline, and so does not fuse with others.

    On a CPU, XLA computes a cheap chain anew in every kernel that reads it. The
    steps of a chunk are one chain: the eighth would compute the seven before it.
    """
    inner = jax.jit(f)

    def call(*args: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return inner(*args)

    return call


class Chunk(NamedTuple):
    """Some successive steps: arrays `(..., steps, F)` and their masks."""

    arrays: Any
    masks: Masks

    def at(self, k: int, r: slice) -> tuple[Any, Masks]:
        """Step `k` for the rows `r` of the batch."""
        return (
            jax.tree.map(lambda a: _rows(a[..., k, :], r), self.arrays),
            jax.tree.map(lambda m: _rows(m[..., k], r), self.masks),
        )


def _rows(a: Array, r: slice) -> Array:
    return a if r == slice(None) else a[r]


def _slabs(h: Array, Z: int, save: bool) -> list[slice]:
    """The rows of the batch, in two halves where that is faster.

    XLA runs a small product on one core. With two independent halves in a step
    another core has work too; a large product takes all cores by itself, and for
    a tiny one handing over costs more than the work.
    """
    *batch, H = h.shape
    rows = math.prod(batch)
    flops = 2 * rows * H * Z
    low = 8e6 if save else 3e6
    sharded = any(jax.typeof(h).sharding.spec)
    if rows < 32 or batch[0] % 2 or not low <= flops <= 6.4e7 or sharded:
        return [slice(None)]
    half = batch[0] // 2
    return [slice(0, half), slice(half, None)]


def _join(states: list[Any]) -> Any:
    if len(states) == 1:
        return states[0]
    return jax.tree.map(lambda *s: jnp.concatenate(s), *states)


def _over_chunks(
    chunk: Callable[[Any, Any, int], Any], carry: Any, T: int, K: int, reverse: bool
) -> Any:
    """Calls `chunk(carry, first step, steps)` for all T, K steps or less at a time."""
    N, rest = divmod(T, K)

    def body(i: Array, carry: Any) -> Any:
        return chunk(carry, T - (i + 1) * K if reverse else i * K, K)

    carry = lax.fori_loop(0, N, body, carry) if N else carry
    return chunk(carry, 0 if reverse else T - rest, rest) if rest else carry


def cut(a: Array, start: Any, size: int) -> Array:
    return lax.dynamic_slice_in_dim(a, start, size, a.ndim - 2)


def cut_masks(masks: Masks, start: Any, size: int) -> Masks:
    return jax.tree.map(
        lambda m: lax.dynamic_slice_in_dim(m, start, size, m.ndim - 1), masks
    )


def put(
    buffer: Array | None, value: Array | None, t: Any, r: slice = slice(None)
) -> Any:
    """`buffer` `(..., T, F)` with `value` at time `t`, rows `r`."""
    if buffer is None or value is None:
        return buffer
    value = value[..., None, :]
    start = [0] * buffer.ndim
    start[-2] = t
    start[0] = t if buffer.ndim == 2 else r.start or 0
    return lax.dynamic_update_slice(buffer, value, start)
