"""Long inputs: only the states between pieces of the sequence are kept.

The backward pass runs a piece forward again before it goes back through it, so
memory is that of one piece and of the states between pieces, T/K + K for pieces of
K steps, and time about a third more than keeping everything.

The gradients of the weights are summed piece by piece, so under `vmap` over the input
alone there is one of each per sequence; give the batch to the function instead.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016,
https://arxiv.org/abs/1604.06174; for recurrent networks Gruslys et al.,
"Memory-Efficient Backpropagation Through Time", 2016,
https://arxiv.org/abs/1606.03401.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._cell import Maps, Masks, hidden
from jaxseq._fused import cut, cut_masks, put, zeros
from jaxseq._recurrence import instantiate, linear

# runs a piece: (maps, x, state, masks) -> (state, y)
Piece = Callable[[Maps, Array, Any, Masks], tuple[Any, Array]]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def over_pieces(
    piece: Piece,
    plain: Piece,
    K: int,
    reverse: bool,
    maps: Maps,
    x: Array,
    state: Any,
    masks: Masks,
) -> tuple[Any, Array]:
    """Runs `piece` over K steps at a time; `plain` is the same, for its tangents."""
    return _forward(piece, K, reverse, maps, x, state, masks)[:2]


def _jvp(
    piece: Piece, plain: Piece, K: int, reverse: bool, primals: Any, tangents: Any
) -> Any:
    maps, x, _, masks = primals
    end, y, kept = _forward(piece, K, reverse, *primals)

    def f(maps: Maps, x: Array, state: Any) -> Any:
        return plain(maps, x, state, masks)

    def pullback(d_end: Any, d_y: Array) -> Any:
        def body(carry: Any, i: Any, start: Any, size: int) -> Any:
            d_maps, d_x, d_state = carry
            at = jax.tree.map(
                lambda a: lax.dynamic_index_in_dim(a, i, a.ndim - 2, False), kept
            )
            now = cut_masks(masks, start, size)
            run = lambda maps, x, state: piece(maps, x, state, now)
            _, pull = jax.vjp(run, maps, cut(x, start, size), at)
            more, d_piece, d_state = pull((d_state, cut(d_y, start, size)))
            d_x = lax.dynamic_update_slice_in_dim(d_x, d_piece, start, x.ndim - 2)
            return jax.tree.map(jnp.add, d_maps, more), d_x, d_state

        zero = jax.tree.map(jnp.zeros_like, (maps, x))
        return _in_order(body, (*zero, d_end), x.shape[-2], K, not reverse)

    b = jax.tree.map(instantiate, primals[:3], tuple(tangents[:3]))
    tangent = lambda b: jax.jvp(f, primals[:3], b)[1]
    return (end, y), linear(tangent, pullback, primals[:3], b, (end, y))


over_pieces.defjvp(_jvp, symbolic_zeros=True)


def _forward(
    piece: Piece,
    K: int,
    reverse: bool,
    maps: Maps,
    x: Array,
    state: Any,
    masks: Masks,
) -> tuple[Any, Array, Any]:
    """The final state, `y`, and the state before each piece, `(..., pieces, H)`."""

    def body(carry: Any, i: Any, start: Any, size: int) -> Any:
        state, y, kept = carry
        kept = jax.tree.map(partial(put, t=i), kept, state)
        now = cut_masks(masks, start, size)
        state, y_piece = piece(maps, cut(x, start, size), state, now)
        y = lax.dynamic_update_slice_in_dim(y, y_piece, start, y.ndim - 2)
        return state, y, kept

    h, T = hidden(state), x.shape[-2]
    H = h.shape[-1]
    kept = jax.tree.map(lambda s: zeros(s, -(-T // K), H), state)
    y = zeros(h, T, H).astype(x.dtype)
    return _in_order(body, (state, y, kept), T, K, reverse)


def _in_order(
    body: Callable[[Any, Any, Any, int], Any], carry: Any, T: int, K: int, reverse: bool
) -> Any:
    """`carry = body(carry, i, first step, steps)` for piece 0, 1, …, or back.

    If K does not divide T, the last piece is shorter.
    """
    N, rest = divmod(T, K)

    def whole(n: Array, carry: Any) -> Any:
        i = N - 1 - n if reverse else n
        return body(carry, i, i * K, K)

    if rest and reverse:
        carry = body(carry, N, N * K, rest)
    carry = lax.fori_loop(0, N, whole, carry) if N else carry
    if rest and not reverse:
        carry = body(carry, N, N * K, rest)
    return carry
