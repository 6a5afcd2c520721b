"""Linear-chain conditional random field over tags of a sequence.

    score(tags) = start[tags_0] + sum_t scores[t, tags_t]
                  + sum_{t>0} transitions[tags_{t-1}, tags_t] + end[tags_{last}]
    log p(tags) = score(tags) - log sum_{tags'} exp score(tags')

Shapes: scores `(..., T, K)` of K tags, such as a linear map of a network's outputs.
A sequence of length 0 has one way to be tagged, of score 0.

Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001; on a recurrent
network Huang, Xu and Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging", 2015,
https://arxiv.org/abs/1508.01991.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.check import (
    as_array,
    check,
    check_array,
    check_dtype,
    check_lengths,
    check_sizes,
    check_tokens,
)
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.mesh import of_each_row, rows, scan


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
    """
    check_sizes(K=K)
    check_dtype(dtype, "dtype")
    shapes = (K, K), (K,), (K,)
    draw = lambda key, shape: jax.random.uniform(key, shape, dtype, -0.1, 0.1)
    return CRFParams(*map(draw, jax.random.split(key, 3), shapes))


def crf_log_partition(
    params: CRFParams, scores: Array, *, lengths: Array | None = None
) -> Array:
    """The logarithm of the sum of exp score(tags) over all ways to tag.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        lengths: valid steps of each sequence, `(...)`; all T if None. Past them the
            scores may be anything.

    Returns:
        `(...)`; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    The forward algorithm: Rabiner, "A Tutorial on Hidden Markov Models", 1989.
    """
    params, scores, valid = _inputs(params, scores, lengths)

    first, rest = _over_time(scores, valid)
    transitions = of_each_row(params.transitions, first)

    def body(alpha: Array, x: Any) -> tuple[Array, None]:
        score, on = x
        ways = alpha[..., :, None] + transitions
        new = _log_sum(ways, -2) + score
        return jnp.where(on[..., None], new, alpha), None

    alpha, _ = scan(body, params.start + first, rest)
    total = _log_sum(alpha + params.end, -1)
    return jnp.where(valid[..., 0], total, 0)


def crf_score(
    params: CRFParams, scores: Array, tags: Array, *, lengths: Array | None = None
) -> Array:
    """The score of one way to tag.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        tags: from 0 to K - 1, `(..., T)`; past `lengths` they may be anything.
        lengths: valid steps of each sequence, `(...)`; all T if None.

    Returns:
        `(...)`; float32 for the 16-bit dtypes. Its difference to
        `crf_log_partition` is the log-probability of the tags, a loss if negated.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params, scores, valid = _inputs(params, scores, lengths)
    shape = jnp.shape(tags)
    check(shape == valid.shape, "tags", f"shape {valid.shape}", shape)
    tags = check_tokens(tags, "tags", scores.shape[-1], valid)
    picked = jnp.take_along_axis(scores, tags[..., None], -1)[..., 0]
    moves = rows(params.transitions, tags[..., :-1], tags[..., 1:])
    total = jnp.where(valid, picked, 0).sum(-1)
    total += jnp.where(valid[..., 1:], moves, 0).sum(-1)
    last = jnp.maximum(valid.sum(-1, dtype=jnp.int32) - 1, 0)[..., None]
    last = jnp.take_along_axis(tags, last, -1)[..., 0]
    ends = rows(params.start, tags[..., 0]) + rows(params.end, last)
    return total + jnp.where(valid[..., 0], ends, 0)


def crf_decode(
    params: CRFParams, scores: Array, *, lengths: Array | None = None
) -> tuple[Array, Array]:
    """The way to tag that has the highest score.

    Args:
        params: weights.
        scores: of each tag at each step, `(..., T, K)`.
        lengths: valid steps of each sequence, `(...)`; all T if None. Past them the
            scores may be anything.

    Returns:
        `(tags, score)`: int32 `(..., T)`, 0 past `lengths`, and `(...)`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Viterbi, "Error Bounds for Convolutional Codes", 1967,
    https://doi.org/10.1109/TIT.1967.1054010.
    """
    params, scores, valid = _inputs(params, scores, lengths)
    stay = jnp.arange(scores.shape[-1], dtype=jnp.int32)

    def forward(best: Array, x: Any) -> tuple[Array, Array]:
        score, on = x
        ways = best[..., :, None] + params.transitions
        new = ways.max(-2) + score
        on = on[..., None]
        before = jnp.where(on, jnp.argmax(ways, -2).astype(jnp.int32), stay)
        return jnp.where(on, new, best), before

    def backward(tag: Array, before: Array) -> tuple[Array, Array]:
        tag = jnp.take_along_axis(before, tag[..., None], -1)[..., 0]
        return tag, tag

    first, rest = _over_time(scores, valid)
    best, before = scan(forward, params.start + first, rest)
    best += params.end
    last = jnp.argmax(best, -1).astype(jnp.int32)
    _, tags = scan(backward, last, before, reverse=True)
    tags = jnp.concatenate([jnp.moveaxis(tags, 0, -1), last[..., None]], -1)
    tags = tags[..., : valid.shape[-1]]
    return jnp.where(valid, tags, 0), jnp.where(valid[..., 0], best.max(-1), 0)


def _log_sum(x: Array, axis: int) -> Array:
    """logsumexp whose gradient is 0, not NaN, where all is forbidden."""
    none = jnp.isneginf(x).all(axis)
    x = jnp.where(jnp.expand_dims(none, axis), 0, x)
    return jnp.where(none, -jnp.inf, jax.nn.logsumexp(x, axis))


def _over_time(scores: Array, valid: Array) -> tuple[Array, tuple[Array, Array]]:
    """Scores of the first step; and of the others, time first, with which are valid.

    If T is symbolic, one that is not valid comes behind: a scan has to know that it
    has a step.
    """
    rest = jnp.moveaxis(scores[..., 1:, :], -2, 0), jnp.moveaxis(valid[..., 1:], -1, 0)
    if is_symbolic_dim(valid.shape[-1]):
        none = lambda a: jnp.zeros_like(a, shape=(1, *a.shape[1:]))
        rest = jax.tree.map(lambda a: jnp.concatenate([a, none(a)]), rest)
    return scores[..., 0, :], rest


def _inputs(params: Any, scores: Any, lengths: Any) -> tuple[CRFParams, Array, Array]:
    """Checked; the scores zero where not valid, all in the dtype of the sums."""
    ok = isinstance(params, CRFParams)
    check(ok, "params", "CRFParams", type(params).__name__)
    params, scores = jax.tree.map(jnp.asarray, params), as_array(scores, "scores")
    check_dtype(scores.dtype, "scores")
    K = params.start.shape[-1] if params.start.ndim else 0
    ok = scores.ndim >= 2 and scores.shape[-1] == K and scores.shape[-2] >= 1
    check(ok, "scores", f"shape (..., T, {K}), T of at least 1", scores.shape)
    shapes = (K, K), (K,), (K,)
    for name, w, shape in zip(CRFParams._fields, params, shapes, strict=True):
        check_array(w, f"params.{name}", shape, scores.dtype)
    *batch, T, _ = scores.shape
    valid = jnp.ones((*batch, T), jnp.bool_)
    if lengths is not None:
        ends = check_lengths(lengths, tuple(batch), T)[..., None]
        valid = jnp.arange(T, dtype=jnp.int32) < ends
        scores = jnp.where(valid[..., None], scores, 0)
    wide = state_dtype(scores.dtype)
    params = jax.tree.map(lambda w: w.astype(wide), params)
    return params, scores.astype(wide), valid
