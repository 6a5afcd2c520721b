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
from jax.export import is_symbolic_dim

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._base.masks import Masks
from jaxseq._engine.linear import with_transpose
from jaxseq._engine.plain import batch_first_plain
from jaxseq._engine.primitive import as_params, spec_of
from jaxseq._engine.slices import at, put
from jaxseq._engine.types import Inputs, Spec, Weights, as_written

# runs a piece: (spec, weights, inputs) -> (state, y)
Piece = Callable[[Spec, Weights, Inputs], tuple[Any, Array]]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def over_pieces(
    piece: Piece, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[Any, Array]:
    """Runs `piece` over `spec.remat` steps at a time; x and y are `(..., T, F)`."""
    return _forward(piece, spec, weights, inputs)[:2]


def _jvp(piece: Piece, spec: Spec, primals: Any, tangents: Any) -> Any:
    with as_written(spec):
        return _derivative(piece, spec, primals, tangents)


def _derivative(piece: Piece, spec: Spec, primals: Any, tangents: Any) -> Any:
    end, y, kept = _forward(piece, spec, *primals)
    is_none = lambda a: a is None
    b = jax.tree.map(
        lambda a, d: None if a is None else d,
        floats(primals),
        tangents,
        is_leaf=is_none,
    )
    # only the transpose reads the states before pieces, and it is never differentiated
    known = primals, jax.lax.stop_gradient(kept)
    effects = frozenset(spec.step.jaxpr.effects)
    options = {"piece": piece, "side_effects": effects, **as_params(spec)}
    out = end, y
    return out, with_transpose(_tangent, _transpose, known, b, out, **options)


def _tangent(known: Any, b: Any, *, piece: Piece, **params: Any) -> Any:
    spec, (primals, _) = spec_of(params), known

    def run(b: Any) -> Any:
        return batch_first_plain(spec, *with_floats(b, primals))

    with as_written(spec):
        return jax.jvp(run, (floats(primals),), (b,))[1]


def _transpose(known: Any, like: Any, d: Any, *, piece: Piece, **params: Any) -> Any:
    spec = spec_of(params)
    with as_written(spec):
        return _gradients(piece, spec, *known, *d)


def _gradients(
    piece: Piece, spec: Spec, primals: Any, kept: Any, d_end: Any, d_y: Array
) -> Any:
    weights, inputs = primals

    def body(carry: Any, i: Any, first: Any, size: Any) -> Any:
        d_weights, d_x, d_state, d_start = carry
        state = tuple(at(a, i) for a in kept)
        now = weights, _piece_of(inputs, state, first, size)
        run = lambda b: piece(spec, *with_floats(b, now))
        _, back = jax.vjp(run, floats(now))
        ((more, d_now),) = back((d_state, _cut(d_y, first, size)))
        d_weights = jax.tree.map(jnp.add, d_weights, more)
        d_x = jax.tree.map(partial(_put, first=first), d_x, d_now.x)
        d_start = jax.tree.map(jnp.add, d_start, d_now.start)
        return d_weights, d_x, d_now.state, d_start

    zero = partial(jax.tree.map, jnp.zeros_like)
    b_weights, b_inputs = floats(primals)
    carry = zero(b_weights), zero(b_inputs.x), tuple(d_end), zero(b_inputs.start)
    carry = _in_order(body, carry, d_y.shape[-2], spec.remat, not spec.reverse)
    d_weights, d_x, d_state, d_start = carry
    return d_weights, Inputs(d_x, d_state, d_start, Masks(None, None))


over_pieces.defjvp(_jvp)


def _forward(
    piece: Piece, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[Any, Array, Any]:
    """The final state, `y`, and the state before each piece, `(pieces, ..., F)`."""

    def body(carry: Any, i: Any, first: Any, size: Any) -> Any:
        state, y, kept = carry
        kept = jax.tree.map(lambda a, s: put(a, s, i), kept, state)
        now = _piece_of(inputs, state, first, size)
        state, y_piece = piece(spec, weights, now)
        return state, _put(y, y_piece, first=first), kept

    T, h = inputs.x[0].shape[-2], inputs.state[0]
    K: Any = spec.remat
    zeros = tuple(map(jnp.zeros_like, inputs.state))
    kept = tuple(jnp.broadcast_to(s, (-(-T // K), *s.shape)) for s in zeros)
    y = zeros[0].astype(spec.dtype)[..., None, :]
    y = jnp.broadcast_to(y, (*h.shape[:-1], T, h.shape[-1]))
    return _in_order(body, (inputs.state, y, kept), T, K, spec.reverse)


def checkpointed(
    piece: Piece, spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[Any, Array]:
    """`over_pieces` with the derivatives of JAX's own."""
    T = inputs.x[0].shape[-2]
    K: Any = spec.remat
    N = T // K

    @jax.checkpoint
    def run(state: Any, now: Any) -> Any:
        x, masks = now
        return piece(spec, weights, Inputs(x, state, inputs.start, masks))

    def part(low: Any, high: Any) -> Any:
        x = tuple(lax.slice_in_dim(a, low, high, axis=-2) for a in inputs.x)
        return x, jax.tree.map(lambda a: a[low:high], inputs.masks)

    def stacked(a: Array, axis: int) -> Array:
        axis %= a.ndim
        shape = *a.shape[:axis], N, K, *a.shape[axis + 1 :]
        return jnp.moveaxis(a.reshape(shape), axis, 0)

    state, parts = inputs.state, []
    for low, high in [(N * K, T), (0, N * K)][:: 1 if spec.reverse else -1]:
        x, masks = part(low, high)
        if low:
            state, y = run(state, (x, masks))
        else:
            over = (
                tuple(stacked(a, -2) for a in x),
                jax.tree.map(lambda a: stacked(a, 0), masks),
            )
            state, y = lax.scan(run, state, over, reverse=spec.reverse)
            y = jnp.moveaxis(y, 0, -3)
            y = y.reshape(*y.shape[:-3], N * K, y.shape[-1])
        parts.append(y)
    return state, jnp.concatenate(parts[:: -1 if spec.reverse else 1], -2)


def padded(inputs: Inputs, T: Any, more: Any) -> Inputs:
    """These inputs with more steps, which are not valid: symbolic pieces are whole."""

    def pad(a: Array, axis: int, value: Any) -> Array:
        widths = [(0, more if i == axis % a.ndim else 0) for i in range(a.ndim)]
        return jnp.pad(a, widths, constant_values=value)

    valid, keep = inputs.masks
    if valid is None:
        valid = jnp.ones((T, *inputs.state[0].shape[:-1]), bool)
    keep = None if keep is None else pad(keep, 0, True)
    x = tuple(pad(a, -2, 0) for a in inputs.x)
    return inputs._replace(x=x, masks=Masks(pad(valid, 0, False), keep))


def _piece_of(inputs: Inputs, state: Any, first: Any, size: Any) -> Inputs:
    x = tuple(_cut(a, first, size) for a in inputs.x)
    part = lambda a: lax.dynamic_slice_in_dim(a, first, size)
    return Inputs(x, state, inputs.start, jax.tree.map(part, inputs.masks))


def _cut(a: Array, first: Any, size: Any) -> Array:
    return lax.dynamic_slice_in_dim(a, first, size, -2)


def _put(a: Array, piece: Array, *, first: Any) -> Array:
    return lax.dynamic_update_slice_in_dim(a, piece, first, -2)


def _in_order(
    body: Callable[[Any, Any, Any, Any], Any], carry: Any, T: Any, K: Any, reverse: bool
) -> Any:
    """`carry = body(carry, i, first step, steps)` for piece 0, 1, …, or back.

    If K does not divide T, the last piece is shorter.
    """
    N, rest = T // K, T % K
    some = is_symbolic_dim(rest) or rest > 0

    def whole(n: Array, carry: Any) -> Any:
        i = N - 1 - n if reverse else n
        return body(carry, i, i * K, K)

    if some and reverse:
        carry = body(carry, N, N * K, rest)
    carry = lax.fori_loop(0, N, whole, carry)
    if some and not reverse:
        carry = body(carry, N, N * K, rest)
    return carry
