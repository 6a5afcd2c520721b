"""Scores and tags as a caller gives them, checked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import as_array, check, check_array, check_dtype, check_tokens
from jaxseq._base.dtypes import state_dtype, widened
from jaxseq._base.masks import select, valid_steps
from jaxseq._base.mesh import as_one_batch, rows
from jaxseq._losses.crf.params import CRFParams


class Steps(NamedTuple):
    """The steps of each sequence, those that are valid moved to the front."""

    given: Array | None  # (..., T), which were valid where they stood; None if all
    order: Array | None  # (..., T), where each of them stood; None if none was moved
    valid: Array  # (..., T)


class Way(NamedTuple):
    """The parts of the score of one way to tag; 0 where a step is not valid."""

    scores: Array  # (..., T)
    moves: Array  # (..., T - 1)
    start: Array  # (...)
    end: Array  # (...)


def check_inputs(
    params: Any, scores: Any, lengths: Any, mask: Any
) -> tuple[CRFParams, Array, Steps]:
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
    params = widened(params)
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
    return params, scores.astype(wide), Steps(given, order, valid)


def way_of(params: CRFParams, scores: Array, tags: Any, steps: Steps) -> Way:
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
    way = Way(picked, moves, rows(params.start, tags[..., 0]), rows(params.end, last))
    some = valid[..., 0]
    return jax.tree.map(select, Way(valid, valid[..., 1:], some, some), way)
