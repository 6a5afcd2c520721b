"""The forward algorithm, in sums that stay small."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.export import is_symbolic_dim

from jaxseq._base.masks import select
from jaxseq._base.mesh import of_each_row, scan
from jaxseq._losses.crf.inputs import Way
from jaxseq._losses.crf.params import CRFParams


class Total(NamedTuple):
    """A sum, and what its rounding has left out of it."""

    value: Array
    error: Array


def log_partition(
    params: CRFParams, scores: Array, valid: Array, way: Way | None = None
) -> Array:
    """The log-partition less the score of one way, part by part, so that sums stay
    small."""
    transitions, start, end = params
    moves = None
    if way is not None:
        scores, moves = scores - way.scores[..., None], way.moves
        start, end = start - way.start[..., None], end - way.end[..., None]
    first, rest = over_time(scores, valid, moves)
    transitions = of_each_row(transitions, first)

    def body(carry: Any, x: Any) -> tuple[Any, None]:
        (alpha, total), (score, on, move) = carry, x
        to = transitions if move is None else transitions - move[..., None, None]
        new = _log_sum(alpha[..., :, None] + to, -2) + score
        return select(on, top_taken_off(new, total), carry), None

    (alpha, total), _ = scan(body, begin(start, first), rest)
    found = total.value + (total.error + _log_sum(alpha + end, -1))
    return jnp.where(valid[..., 0], found, 0)


def begin(start: Array, first: Array) -> tuple[Array, Total]:
    zero = jnp.zeros_like(first[..., 0])
    return start + first, Total(zero, zero)


def top_taken_off(alpha: Array, total: Total) -> tuple[Array, Total]:
    """`alpha` less its maximum, which is added to the total.

    In one sum over all steps each would be rounded as the sum is. What the total's
    own rounding leaves out: Knuth, "The Art of Computer Programming", volume 2, 4.2.2.
    """
    top = lax.stop_gradient(alpha.max(-1))
    top = jnp.where(jnp.isfinite(top), top, 0)
    value, error = total
    new = value + top
    part = new - value
    error += (value - (new - part)) + (top - part)
    return alpha - top[..., None], Total(new, error)


def _log_sum(x: Array, axis: int) -> Array:
    """logsumexp, exact where one is far above the others.

    Its gradient is 0, not NaN, where all is forbidden.
    """
    top = lax.stop_gradient(x.max(axis))
    none = jnp.isneginf(top)
    top = jnp.where(jnp.isfinite(top), top, 0)
    x = jnp.where(jnp.expand_dims(none, axis), 0, x) - jnp.expand_dims(top, axis)
    is_top = x == 0
    # exp sums to 1 + others, but that sum would lose what is small
    others = jnp.exp(x) - is_top.astype(x.dtype)
    others = others.sum(axis) + (is_top.sum(axis, dtype=x.dtype) - 1)
    return jnp.where(none, -jnp.inf, top + jnp.log1p(others))


def over_time(
    scores: Array, valid: Array, moves: Array | None = None
) -> tuple[Array, Any]:
    """Scores of the first step; and of the others, time first, with what else is given.

    If T is symbolic, one that is not valid comes behind: a scan has to know that it
    has a step.
    """
    rest = jnp.moveaxis(scores[..., 1:, :], -2, 0), valid[..., 1:], moves
    rest = rest[0], *jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), rest[1:])
    if is_symbolic_dim(valid.shape[-1]):
        none = lambda a: jnp.zeros_like(a, shape=(1, *a.shape[1:]))
        rest = jax.tree.map(lambda a: jnp.concatenate([a, none(a)]), rest)
    return scores[..., 0, :], rest
