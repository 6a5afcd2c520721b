"""Decoding for connectionist temporal classification (CTC).

A path has a token or a blank at each step. It stands for a labelling: repeated tokens
are taken as one, then blanks left out. The probability of a labelling is the sum of
those of its paths.

Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification",
2006, https://doi.org/10.1145/1143844.1143891. Its loss is `optax.ctc_loss`.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxseq._base.check import as_array, check, check_dtype, check_lengths, check_sizes
from jaxseq._base.dtypes import state_dtype
from jaxseq._base.mesh import on_auto_axes, scan
from jaxseq._search.decoded import Decoded


def ctc_greedy(
    logits: Array, *, lengths: Array | None = None, blank: int = 0
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
        ValueError: if a shape, dtype or value does not fit.
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
    logits: Array,
    *,
    lengths: Array | None = None,
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
        ValueError: if a shape, dtype or value does not fit.

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
    ok = hasattr(blank, "__index__") and 0 <= blank < V
    check(ok, "blank", f"a token from 0 to {V - 1}", blank)
    valid = jnp.ones((*batch, T), jnp.bool_)
    if lengths is not None:
        ends = check_lengths(lengths, tuple(batch), T)[..., None]
        valid = jnp.arange(T, dtype=jnp.int32) < ends
        logits = jnp.where(valid[..., None], logits, 0)
    return jax.nn.log_softmax(logits.astype(state_dtype(logits.dtype))), valid
