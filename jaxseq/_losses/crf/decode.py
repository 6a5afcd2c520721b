"""The way to tag that has the highest score."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.masks import select
from jaxseq._base.mesh import scan
from jaxseq._losses.crf.forward import begin, over_time, top_taken_off
from jaxseq._losses.crf.inputs import check_inputs
from jaxseq._losses.crf.params import CRFParams


def crf_decode(
    params: CRFParams,
    scores: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
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
        >>> params = jaxseq.crf_init(jax.random.key(0), 3)
        >>> scores = 9 * jax.nn.one_hot(jnp.array([2, 0, 1, 1]), 3)
        >>> jaxseq.crf_decode(params, scores, mask=jnp.array([1, 1, 0, 1], bool))[0]
        Array([2, 0, 0, 1], dtype=int32)

    Viterbi, "Error Bounds for Convolutional Codes", 1967,
    https://doi.org/10.1109/TIT.1967.1054010.
    """
    params, scores, steps = check_inputs(params, scores, lengths, mask)
    stay = jnp.arange(scores.shape[-1], dtype=jnp.int32)

    def forward(carry: Any, x: Any) -> tuple[Any, Array]:
        (best, total), (score, on, _) = carry, x
        ways = best[..., :, None] + params.transitions
        new = top_taken_off(ways.max(-2) + score, total)
        before = jnp.argmax(ways, -2).astype(jnp.int32)
        return select(on, new, carry), jnp.where(on[..., None], before, stay)

    def backward(tag: Array, before: Array) -> tuple[Array, Array]:
        tag = jnp.take_along_axis(before, tag[..., None], -1)[..., 0]
        return tag, tag

    first, rest = over_time(scores, steps.valid)
    (best, total), before = scan(forward, begin(params.start, first), rest)
    best += params.end
    last = jnp.argmax(best, -1).astype(jnp.int32)
    _, tags = scan(backward, last, before, reverse=True)
    tags = jnp.concatenate([jnp.moveaxis(tags, 0, -1), last[..., None]], -1)
    tags = jnp.where(steps.valid, tags[..., : steps.valid.shape[-1]], 0)
    if steps.order is not None:
        tags = jnp.take_along_axis(tags, jnp.argsort(steps.order, -1), -1)
    score = total.value + (total.error + best.max(-1))
    return tags, jnp.where(steps.valid[..., 0], score, 0)
