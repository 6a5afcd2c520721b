"""Linear-chain conditional random field over tags of a sequence.

    score(tags) = start[tags_0] + sum_t scores[t, tags_t]
                  + sum_{t>0} transitions[tags_{t-1}, tags_t] + end[tags_{last}]
    log p(tags) = score(tags) - log sum_{tags'} exp score(tags')

Shapes: scores `(..., T, K)` of K tags, such as a linear map of a network's outputs.
A sequence of length 0 has one way to be tagged, of score 0. What `lengths` and `mask`
leave out may be anything, and all is as if these steps were not there: a transition
leads from one valid step to the next.

Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001; on a recurrent
network Huang, Xu and Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging", 2015,
https://arxiv.org/abs/1508.01991.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.export import is_symbolic_dim

from jaxseq._base.check import (
    as_array,
    check,
    check_array,
    check_dtype,
    check_key,
    check_sizes,
    check_tokens,
)
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.masks import select, valid_steps
from jaxseq._base.mesh import as_one_batch, of_each_row, rows, scan


class CRFParams(NamedTuple):
    """Weights of a linear-chain CRF over K tags; -inf forbids a transition."""

    transitions: Array  # (K, K), from the tag of the row to that of the column
    start: Array  # (K,), of the first tag
    end: Array  # (K,), of the last tag


def crf_init(key: Array, K: int, *, dtype: Any = jnp.float32) -> CRFParams:
    """Draws the weights of a CRF over `K` tags.

    Args:
        key: random key.
        K: number of tags.
        dtype: of the weights.

    Returns:
        `CRFParams`, uniform in ±0.1.

    Raises:
        ValueError: if `K` is not positive or `dtype` not a float.

    Example:
        >>> params = crf_init(jax.random.key(0), 5)
        >>> params.transitions.shape, params.start.shape, params.end.shape
        ((5, 5), (5,), (5,))
        >>> never = params.transitions.at[0, 3].set(-jnp.inf)  # tag 3 after tag 0
        >>> params = params._replace(transitions=never)
    """
    check_key(key)
    check_sizes(K=K)
    check_dtype(dtype, "dtype")
    shapes = (K, K), (K,), (K,)
    draw = lambda key, shape: jax.random.uniform(key, shape, dtype, -0.1, 0.1)
    return CRFParams(*map(draw, jax.random.split(key, 3), shapes))


def crf_log_partition(
    params: CRFParams,
    scores: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """The logarithm of the sum of exp score(tags) over all ways to tag.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None.

    Returns:
        `(...)`; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if `params` are not `CRFParams` of the shapes and dtype that
            `scores` ask for, `lengths` are not integers from 0 to T, or `mask` is not
            booleans of the shape of the steps.

    Example:
        >>> params = crf_init(jax.random.key(0), 5)
        >>> scores = jnp.zeros((2, 7, 5))  # of a network, for 2 sequences of 7 steps
        >>> crf_log_partition(params, scores, lengths=jnp.array([7, 4])).shape
        (2,)

    The forward algorithm: Rabiner, "A Tutorial on Hidden Markov Models", 1989.
    """
    params, scores, steps = _inputs(params, scores, lengths, mask)
    return _log_partition(params, scores, steps.valid)


def crf_score(
    params: CRFParams,
    scores: Array,
    tags: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """The score of one way to tag.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        tags: from 0 to K - 1, `(..., T)`; with another, where only a run under `jit`
            knows it, the score is NaN.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None.

    Returns:
        `(...)`; float32 for the 16-bit dtypes. Its difference to
        `crf_log_partition` is the log-probability of the tags; of a long sequence
        `crf_loss` gives it without the rounding of two large sums.

    Raises:
        ValueError: if `tags` are not integers from 0 to K - 1, one for each step, or
            another argument is not as in `crf_log_partition`.

    Example:
        >>> params, scores = crf_init(jax.random.key(0), 5), jnp.zeros((2, 7, 5))
        >>> tags = jnp.ones((2, 7), int)
        >>> log_p = crf_score(params, scores, tags) - crf_log_partition(params, scores)
    """
    params, scores, steps = _inputs(params, scores, lengths, mask)
    return _sum(_way(params, scores, tags, steps))


def crf_loss(
    params: CRFParams,
    scores: Array,
    tags: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """The negative log-probability of one way to tag, in nats.

    It is `crf_log_partition` less `crf_score`, but neither is computed: of a long
    sequence both may be large and rounded by more than their difference.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        tags: from 0 to K - 1, `(..., T)`; with another, where only a run under `jit`
            knows it, the loss is NaN.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None.

    Returns:
        `(...)`; float32 for the 16-bit dtypes. It is infinite for tags that are
        forbidden, and 0 for no step.

    Raises:
        ValueError: if `tags` are not integers from 0 to K - 1, one for each step, or
            another argument is not as in `crf_log_partition`.

    Example:
        >>> params, scores = crf_init(jax.random.key(0), 5), jnp.zeros((2, 7, 5))
        >>> tags = jnp.ones((2, 7), int)
        >>> mean = lambda params: crf_loss(params, scores, tags).mean()
        >>> loss, grads = jax.jit(jax.value_and_grad(mean))(params)
    """
    params, scores, steps = _inputs(params, scores, lengths, mask)
    way = _way(params, scores, tags, steps)
    finite = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), way)
    others = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), 0, a), way)
    return _log_partition(params, scores, steps.valid, finite) - _sum(others)


def crf_decode(
    params: CRFParams,
    scores: Array,
    *,
    lengths: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The way to tag that has the highest score.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        lengths: valid steps of each sequence, `(...)`; all T if None.
        mask: booleans `(..., T)`, which of these are valid; all if None.

    Returns:
        `(tags, score)`: int32 `(..., T)`, 0 at steps that are not valid, and `(...)`.

    Raises:
        ValueError: if an argument is not as in `crf_log_partition`.

    Example:
        >>> params = crf_init(jax.random.key(0), 3)
        >>> scores = 9 * jax.nn.one_hot(jnp.array([2, 0, 1, 1]), 3)
        >>> crf_decode(params, scores, mask=jnp.array([1, 1, 0, 1], bool))[0]
        Array([2, 0, 0, 1], dtype=int32)

    Viterbi, "Error Bounds for Convolutional Codes", 1967,
    https://doi.org/10.1109/TIT.1967.1054010.
    """
    params, scores, steps = _inputs(params, scores, lengths, mask)
    stay = jnp.arange(scores.shape[-1], dtype=jnp.int32)

    def forward(carry: Any, x: Any) -> tuple[Any, Array]:
        (best, total), (score, on, _) = carry, x
        ways = best[..., :, None] + params.transitions
        new = _top_taken_off(ways.max(-2) + score, total)
        before = jnp.argmax(ways, -2).astype(jnp.int32)
        return select(on, new, carry), jnp.where(on[..., None], before, stay)

    def backward(tag: Array, before: Array) -> tuple[Array, Array]:
        tag = jnp.take_along_axis(before, tag[..., None], -1)[..., 0]
        return tag, tag

    first, rest = _over_time(scores, steps.valid)
    (best, total), before = scan(forward, _start(params.start, first), rest)
    best += params.end
    last = jnp.argmax(best, -1).astype(jnp.int32)
    _, tags = scan(backward, last, before, reverse=True)
    tags = jnp.concatenate([jnp.moveaxis(tags, 0, -1), last[..., None]], -1)
    tags = jnp.where(steps.valid, tags[..., : steps.valid.shape[-1]], 0)
    if steps.order is not None:
        tags = jnp.take_along_axis(tags, jnp.argsort(steps.order, -1), -1)
    score = total.value + (total.error + best.max(-1))
    return tags, jnp.where(steps.valid[..., 0], score, 0)


class _Steps(NamedTuple):
    """The steps of each sequence, those that are valid moved to the front."""

    given: Array | None  # (..., T), which were valid where they stood; None if all
    order: Array | None  # (..., T), where each of them stood; None if none was moved
    valid: Array  # (..., T)


class _Way(NamedTuple):
    """The parts of the score of one way to tag; 0 where a step is not valid."""

    scores: Array  # (..., T)
    moves: Array  # (..., T - 1)
    start: Array  # (...)
    end: Array  # (...)


class _Total(NamedTuple):
    """A sum, and what its rounding has left out of it."""

    value: Array
    error: Array


def _inputs(
    params: Any, scores: Any, lengths: Any, mask: Any
) -> tuple[CRFParams, Array, _Steps]:
    """Checked; the scores zero where not valid, all in the dtype of the sums."""
    ok = isinstance(params, CRFParams)
    check(ok, "params", "CRFParams", type(params).__name__)
    named = params._asdict().items()
    params = CRFParams(*(as_array(w, f"params.{name}") for name, w in named))
    scores = as_array(scores, "scores")
    check_dtype(scores.dtype, "scores")
    K = params.start.shape[-1] if params.start.ndim else 0
    ok = scores.ndim >= 2 and scores.shape[-1] == K and scores.shape[-2] >= 1
    check(ok, "scores", f"shape (..., T, {K}), T of at least 1", scores.shape)
    shapes = (K, K), (K,), (K,)
    for name, w, shape in zip(CRFParams._fields, params, shapes, strict=True):
        check_array(w, f"params.{name}", shape, scores.dtype)
    *batch, T, _ = scores.shape
    wide = state_dtype(scores.dtype)
    params = jax.tree.map(lambda w: w.astype(wide), params)
    given = valid_steps(lengths, mask, tuple(batch), T)
    order, valid = None, given
    if valid is None:
        valid = jnp.ones((*batch, T), jnp.bool_)
    else:
        scores = jnp.where(valid[..., None], scores, 0)
    scores, valid = as_one_batch((scores, valid), len(batch))
    if mask is not None:
        order = jnp.argsort(~valid, -1, stable=True)
        scores = jnp.take_along_axis(scores, order[..., None], -2)
        valid = jnp.take_along_axis(valid, order, -1)
    return params, scores.astype(wide), _Steps(given, order, valid)


def _way(params: CRFParams, scores: Array, tags: Any, steps: _Steps) -> _Way:
    (given, order, valid), K = steps, scores.shape[-1]
    tags = check_tokens(tags, "tags", K, given)
    check(tags.shape == valid.shape, "tags", f"shape {valid.shape}", tags.shape)
    _, tags = as_one_batch((valid, tags), valid.ndim - 1)
    if order is not None:
        tags = jnp.take_along_axis(tags, order, -1)
    tags = jnp.where(tags < 0, K, tags)  # both are beyond: NaN
    picked = jnp.take_along_axis(scores, tags[..., None], -1, mode="fill")[..., 0]
    moves = rows(params.transitions, tags[..., :-1], tags[..., 1:])
    last = jnp.maximum(valid.sum(-1, dtype=jnp.int32) - 1, 0)[..., None]
    last = jnp.take_along_axis(tags, last, -1)[..., 0]
    way = _Way(picked, moves, rows(params.start, tags[..., 0]), rows(params.end, last))
    some = valid[..., 0]
    return jax.tree.map(select, _Way(valid, valid[..., 1:], some, some), way)


def _sum(way: _Way) -> Array:
    return way.scores.sum(-1) + way.moves.sum(-1) + way.start + way.end


def _log_partition(
    params: CRFParams, scores: Array, valid: Array, way: _Way | None = None
) -> Array:
    """The log-partition less the score of one way, part by part, so that sums stay
    small."""
    transitions, start, end = params
    moves = None
    if way is not None:
        scores, moves = scores - way.scores[..., None], way.moves
        start, end = start - way.start[..., None], end - way.end[..., None]
    first, rest = _over_time(scores, valid, moves)
    transitions = of_each_row(transitions, first)

    def body(carry: Any, x: Any) -> tuple[Any, None]:
        (alpha, total), (score, on, move) = carry, x
        to = transitions if move is None else transitions - move[..., None, None]
        new = _log_sum(alpha[..., :, None] + to, -2) + score
        return select(on, _top_taken_off(new, total), carry), None

    (alpha, total), _ = scan(body, _start(start, first), rest)
    found = total.value + (total.error + _log_sum(alpha + end, -1))
    return jnp.where(valid[..., 0], found, 0)


def _start(start: Array, first: Array) -> tuple[Array, _Total]:
    zero = jnp.zeros_like(first[..., 0])
    return start + first, _Total(zero, zero)


def _top_taken_off(alpha: Array, total: _Total) -> tuple[Array, _Total]:
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
    return alpha - top[..., None], _Total(new, error)


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


def _over_time(
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
