"""Scores of ways to tag, and the logarithm of their sum."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._losses.crf.forward import log_partition
from jaxseq._losses.crf.inputs import Way, check_inputs, way_of
from jaxseq._losses.crf.params import CRFParams


def crf_log_partition(
    params: CRFParams,
    scores: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
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
        >>> params = jaxseq.crf_init(jax.random.key(0), 5)
        >>> scores = jnp.zeros((2, 7, 5))  # of a network, for 2 sequences of 7 steps
        >>> jaxseq.crf_log_partition(params, scores, lengths=jnp.array([7, 4])).shape
        (2,)

    The forward algorithm: Rabiner, "A Tutorial on Hidden Markov Models", 1989.
    """
    params, scores, steps = check_inputs(params, scores, lengths, mask)
    return log_partition(params, scores, steps.valid)


def crf_score(
    params: CRFParams,
    scores: ArrayLike,
    tags: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
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
        >>> params, scores = jaxseq.crf_init(jax.random.key(0), 5), jnp.zeros((2, 7, 5))
        >>> tags = jnp.ones((2, 7), int)
        >>> log_z = jaxseq.crf_log_partition(params, scores)
        >>> log_p = jaxseq.crf_score(params, scores, tags) - log_z
    """
    params, scores, steps = check_inputs(params, scores, lengths, mask)
    return _sum(way_of(params, scores, tags, steps))


def crf_loss(
    params: CRFParams,
    scores: ArrayLike,
    tags: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
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
        >>> params, scores = jaxseq.crf_init(jax.random.key(0), 5), jnp.zeros((2, 7, 5))
        >>> tags = jnp.ones((2, 7), int)
        >>> mean = lambda params: jaxseq.crf_loss(params, scores, tags).mean()
        >>> loss, grads = jax.jit(jax.value_and_grad(mean))(params)
    """
    params, scores, steps = check_inputs(params, scores, lengths, mask)
    way = way_of(params, scores, tags, steps)
    finite = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), way)
    others = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), 0, a), way)
    return log_partition(params, scores, steps.valid, finite) - _sum(others)


def _sum(way: Way) -> Array:
    return way.scores.sum(-1) + way.moves.sum(-1) + way.start + way.end
