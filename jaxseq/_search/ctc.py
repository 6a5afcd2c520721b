"""Decoding for connectionist temporal classification (CTC).

A path has a token or a blank at each step. It stands for a labelling: repeated tokens
are taken as one, then blanks left out. The probability of a labelling is the sum of
those of its paths.

A labelling needs a step for each token and, between two equal tokens, one more for a
blank: "hello" needs 6. In fewer steps it has no path, so its probability is 0 and its
loss infinite, for which `optax.ctc_loss`, the loss to train with, gives about 1e5.
One such sequence outweighs all others in a mean; `ctc_steps` tells which to leave out:

    >>> labels = jnp.array([[8, 5, 12, 12, 15], [1, 1, 0, 0, 0]])
    >>> steps = jnp.array([5, 3])  # of the logits
    >>> jaxseq.ctc_steps(labels, lengths=jnp.array([5, 2])) <= steps
    Array([False,  True], dtype=bool)

Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification",
2006, https://doi.org/10.1145/1143844.1143891.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from jaxseq._base.check import (
    as_array,
    check,
    check_dtype,
    check_sizes,
    check_tokens,
    check_value,
    is_whole,
    of_values,
)
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.masks import valid_steps
from jaxseq._base.mesh import on_auto_axes, scan
from jaxseq._search.decoded import Decoded


def ctc_greedy(
    logits: ArrayLike, *, lengths: ArrayLike | None = None, blank: int = 0
) -> Decoded:
    """The labelling of the most probable path.

    Args:
        logits: of tokens and the blank, `(..., T, V)`.
        lengths: valid steps of each sequence, `(...)`; all T if None. Past them the
            logits may be anything.
        blank: which of the V is the blank.

    Returns:
        `Decoded`: tokens `(..., T)`, blanks behind the labelling; lengths `(...)`;
        scores `(...)`, the log-probability of the path, float32 for the 16-bit
        dtypes.

    Raises:
        ValueError: if `logits` are not floats `(..., T, V)`, `lengths` are not
            integers from 0 to T, or `blank` is not an integer from 0 to V - 1.

    Example:
        >>> path = jnp.array([0, 3, 3, 0, 3, 1])  # 0 is the blank
        >>> tokens, n, scores = jaxseq.ctc_greedy(9 * jax.nn.one_hot(path, 4))
        >>> tokens[:n]
        Array([3, 3, 1], dtype=int32)
    """
    log_p, valid = _inputs(logits, lengths, blank)
    path = jnp.argmax(log_p, -1).astype(jnp.int32)
    before = jnp.concatenate([jnp.full_like(path[..., :1], blank), path[..., :-1]], -1)
    new = (path != blank) & (path != before) & valid
    order = jnp.argsort(~new, -1, stable=True)
    n = new.sum(-1, dtype=jnp.int32)
    tokens = jnp.take_along_axis(path, order, -1)
    inside = jnp.arange(path.shape[-1], dtype=jnp.int32) < n[..., None]
    scores = jnp.where(valid, log_p.max(-1), 0).sum(-1)
    return Decoded(jnp.where(inside, tokens, blank), n, scores)


def ctc_beam_search(
    logits: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    blank: int = 0,
    beam: int = 16,
    n_best: int = 1,
) -> Decoded:
    """Searches for the most probable labellings, `beam` prefixes at a time.

    Args:
        logits: of tokens and the blank, `(..., T, V)`.
        lengths: valid steps of each sequence, `(...)`; all T if None. Past them the
            logits may be anything.
        blank: which of the V is the blank.
        beam: labellings kept at each step.
        n_best: number of labellings returned, at most `beam`.

    Returns:
        `Decoded`: tokens `(..., n_best, T)`, blanks behind a labelling; lengths
        `(..., n_best)`; scores `(..., n_best)`, the log-probability of each over the
        paths that the search kept, so at most its own, float32 for the 16-bit
        dtypes. The best stand first; where fewer are found the others are empty, with
        the score -inf.

    Raises:
        ValueError: if `logits` are not floats `(..., T, V)`, `lengths` are not
            integers from 0 to T, `blank` is not an integer from 0 to V - 1, or `beam`
            and `n_best` are not integers with 1 <= n_best <= beam.

    Example:
        >>> path = jnp.array([0, 3, 3, 0, 3, 1])  # 0 is the blank
        >>> tokens, n, _ = jaxseq.ctc_beam_search(9 * jax.nn.one_hot(path, 4), n_best=2)
        >>> tokens[0, : n[0]]
        Array([3, 3, 1], dtype=int32)

    Prefix search with a beam, as in Hannun, Maas, Jurafsky and Ng, "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs",
    2014, https://arxiv.org/abs/1408.2873, without a language model.
    """
    check_sizes(beam=beam, n_best=n_best)
    check(n_best <= beam, "n_best", f"at most beam = {beam}", n_best)
    log_p, valid = _inputs(logits, lengths, blank)
    *batch, T, V = log_p.shape
    B, K = prod(batch), beam

    def search(log_p: Array, valid: Array) -> Decoded:
        tokens = jnp.full((K, T), blank, jnp.int32)
        none = jnp.full(K, -jnp.inf, log_p.dtype)
        nothing = tokens, jnp.zeros(K, jnp.int32), none.at[0].set(0), none
        step = lambda beams, x: (_step(beams, x[0], x[1], blank), None)
        (tokens, n, p_b, p_t), _ = scan(step, nothing, (log_p, valid))
        scores, best = lax.top_k(jnp.logaddexp(p_b, p_t), n_best)
        return Decoded(tokens[best], n[best], scores)

    def run(log_p: Array, valid: Array) -> Decoded:
        found = jax.vmap(search)(log_p.reshape(B, T, V), valid.reshape(B, T))
        return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), found)

    layout = lambda lead: PartitionSpec(*tuple(lead)[:-1])
    return on_auto_axes(run, log_p, layout)(log_p, valid)


def ctc_steps(labels: ArrayLike, *, lengths: ArrayLike | None = None) -> Array:
    """The least number of steps in which labellings can be written.

    Args:
        labels: tokens without blanks, `(..., L)`.
        lengths: tokens of each labelling, `(...)`; all L if None. Past them the labels
            may be anything.

    Returns:
        int32 `(...)`, the number of tokens and of those that equal the one before.

    Raises:
        ValueError: if `labels` are not integers `(..., L)`, or `lengths` are not
            integers from 0 to L.

    Example:
        >>> jaxseq.ctc_steps(jnp.array([8, 5, 12, 12, 15]))
        Array(6, dtype=int32)
    """
    shape = of_values(labels, "labels").shape
    check(len(shape) >= 1, "labels", "shape (..., L)", shape)
    *batch, L = shape
    valid = valid_steps(lengths, None, tuple(batch), L)
    labels = check_tokens(labels, "labels", None, valid)
    if valid is None:
        valid = jnp.ones(shape, jnp.bool_)
    again = (labels[..., 1:] == labels[..., :-1]) & valid[..., 1:]
    return valid.sum(-1, dtype=jnp.int32) + again.sum(-1, dtype=jnp.int32)


def _step(beams: Any, log_p: Array, on: Array, blank: int) -> Any:
    """One step of K prefixes: tokens (K, T), their number, and log-probabilities of
    the paths that end in a blank and in a token."""
    tokens, n, p_b, p_t = beams
    (K, T), V = tokens.shape, log_p.shape[-1]
    at = jnp.arange(T, dtype=jnp.int32)
    is_last = at == n[:, None] - 1
    last = jnp.where(
        n > 0, jnp.where(is_last, tokens, 0).sum(-1, dtype=jnp.int32), blank
    )
    either = jnp.logaddexp(p_b, p_t)
    # the same token again is new only behind a blank
    again = jnp.arange(V, dtype=jnp.int32) == last[:, None]
    longer = log_p + jnp.where(again, p_b[:, None], either[:, None])
    longer = longer.at[:, blank].set(-jnp.inf)
    same_b = either + log_p[blank]
    same_t = p_t + log_p[last]
    # a prefix made longer may be another of the beam, which then takes its paths
    shorter = jnp.where(is_last, blank, tokens)
    parent = (shorter[:, None] == tokens[None]).all(-1)
    parent &= (n[:, None] == n[None] + 1) & (either > -jnp.inf)[:, None]
    joins = jnp.where(parent, longer[:, last].T, -jnp.inf)
    same_t = jnp.logaddexp(same_t, jax.nn.logsumexp(joins, 1))
    taken = (parent[:, :, None] & again[:, None, :]).any(0)
    longer = jnp.where(taken, -jnp.inf, longer)

    ways = jnp.concatenate([jnp.logaddexp(same_b, same_t), longer.reshape(K * V)])
    scores, way = lax.top_k(ways, K)
    grows = way >= K
    source = jnp.where(grows, (way - K) // V, way)
    new = ((way - K) % V).astype(jnp.int32)
    tokens, n, dead = tokens[source], n[source], scores == -jnp.inf
    tokens = jnp.where(grows[:, None] & (at == n[:, None]), new[:, None], tokens)
    n = n + grows.astype(jnp.int32)
    after = (  # what has no path is empty, so that it equals no other
        jnp.where(dead[:, None], blank, tokens),
        jnp.where(dead, 0, n),
        jnp.where(grows, -jnp.inf, same_b[source]),
        jnp.where(grows, scores, same_t[source]),
    )
    return jax.tree.map(lambda a, b: jnp.where(on, a, b), after, beams)


def _inputs(logits: Any, lengths: Any, blank: int) -> tuple[Array, Array]:
    """Log-probabilities, and which steps are valid, (..., T)."""
    logits = as_array(logits, "logits")
    check_dtype(logits.dtype, "logits")
    ok = logits.ndim >= 2 and logits.shape[-1] >= 1
    check(ok, "logits", "shape (..., T, V)", logits.shape)
    *batch, T, V = logits.shape
    ok = is_whole(blank) and 0 <= blank < V
    check_value(ok, "blank", f"a token from 0 to {V - 1}", blank)
    valid = valid_steps(lengths, None, tuple(batch), T)
    if valid is None:
        valid = jnp.ones((*batch, T), jnp.bool_)
    else:
        logits = jnp.where(valid[..., None], logits, 0)
    return jax.nn.log_softmax(logits.astype(state_dtype(logits.dtype))), valid
