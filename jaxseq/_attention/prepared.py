"""Attention inside models: what does not depend on the query is made once."""

from typing import Any

from jax import Array

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._attention.params import AdditiveParams, Dot, MultiHeadParams, ScaledDot
from jaxseq._attention.scores import additive, dot
from jaxseq._base.linear import linear

Score = AdditiveParams | MultiHeadParams | Dot | ScaledDot | Array


def prepare(score: Score, values: Array) -> Any:
    """The keys of `values`, `(..., S, K)`, as `attend` takes them."""
    if isinstance(score, AdditiveParams):
        return linear(values, score.w_k)
    if isinstance(score, MultiHeadParams):
        return heads_of(score, values, values)
    return None


def attend(
    score: Score, query: Array, keys: Any, values: Array, valid: Array | None
) -> tuple[Array, Array]:
    """Context and weights of queries `(..., T, Q)`; `valid` is `(..., S)`."""
    valid = None if valid is None else valid[..., None, :]
    if isinstance(score, AdditiveParams):
        return additive(score, query, keys, values, valid)
    if isinstance(score, MultiHeadParams):
        k, v = keys
        return attend_heads(score, query, k, v, valid)
    if isinstance(score, ScaledDot):
        return dot(query, values, values, valid)
    query = query if isinstance(score, Dot) else linear(query, score)
    return dot(query, values, values, valid, scale=1.0)
