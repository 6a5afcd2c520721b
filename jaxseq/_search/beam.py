"""Beam search."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxseq._base.check import check, check_callable, check_number, check_sizes
from jaxseq._base.mesh import as_one_batch, while_loop
from jaxseq._search.decoded import Decoded
from jaxseq._search.log_probs import log_probs
from jaxseq._search.step import (
    Process,
    Step,
    check_end,
    check_logits,
    check_most,
    check_process,
    check_room,
    check_state,
    check_token,
    filler,
    is_end,
    processed,
    select_rows,
)

Penalty = Callable[[Any], Array]  # number of tokens: divisor of the log-probability


def beam_search(
    step: Step,
    state: Any,
    token: ArrayLike,
    *,
    max_length: int,
    end: ArrayLike | Sequence[int] | None,
    beam: int,
    n_best: int = 1,
    length_penalty: ArrayLike = 0.0,
    max_lengths: ArrayLike | None = None,
    process: Process | tuple[Process, ...] | None = None,
) -> Decoded:
    """Searches for the sequences of the highest score, `beam` at a time.

    The score of n tokens, the end token counted, is their log-probability over
    `((5 + n) / 6) ** length_penalty`. A sequence may end where that is among the
    `beam` best of all ways to go on. The search stops when none that goes on can
    still come among the `n_best`.

    A state with a cache of limited size needs room for P - 1 + `max_length` tokens, P
    being those of the prompt, or 1 with none. A hypothesis whose logits hold a NaN
    ends there, with the score NaN, and comes behind all that have a score.

    Args:
        step: `(state, token) -> (state, logits)`; it is given batches of B times
            `beam`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        max_length: most tokens of an output, L; what has no end by then counts as
            it is.
        end: token that ends a sequence, or several, or None.
        beam: sequences kept at each step.
        n_best: number of sequences returned, at most `beam`.
        length_penalty: exponent, at least 0; 0 for none.
        max_lengths: most tokens of each output, `(B,)`, from 0 to L; all L if None.
        process: function `(logits, tokens, n) -> logits`, or a tuple of these, with B
            times `beam` rows; see `greedy`.

    Returns:
        `Decoded`: tokens `(B, n_best, L)`, lengths and scores `(B, n_best)`, the
        best first. Where fewer sequences are found the others are empty, of length 0
        and score -inf. Scores are of the logits that `process` gives.

    Raises:
        ValueError: if a shape, dtype or option does not fit, or the state is known to
            have too little room.

    Example:
        >>> p = jnp.array([[0.0, 0.6, 0.4], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0]])
        >>> step = lambda state, token: (state, jnp.log(p[token]))
        >>> options = {"max_length": 2, "end": 0, "beam": 2, "n_best": 2}
        >>> found = jaxseq.beam_search(step, (), jnp.array([0]), **options)
        >>> found.tokens.tolist(), (100 * jnp.exp(found.scores)).round().tolist()
        ([[[2, 0], [1, 0]]], [[36.0, 24.0]])

    Wu and others, "Google's Neural Machine Translation System", 2016,
    https://arxiv.org/abs/1609.08144, equation 14, without the coverage penalty.
    """
    check_callable(step, "step")
    check_sizes(max_length=max_length, beam=beam, n_best=n_best)
    check(n_best <= beam, "n_best", f"at most beam = {beam}", n_best)
    inside = lambda a: (a >= 0) & (a < jnp.inf)
    check_number(length_penalty, "length_penalty", "a number of at least 0", inside)
    first = check_token(token)
    (B,), K, L = first.shape, beam, max_length
    flat = lambda a: a.reshape(B * K, *a.shape[2:])
    of_each = lambda a: flat(jnp.broadcast_to(a[:, None], (B, K, *a.shape[1:])))
    of_beams = lambda a: a.reshape(B, K, *a.shape[1:])
    state = check_state(state, B)
    check_room(state, L, "max_length")
    most = check_most(max_lengths, B, L)
    state, first, most = as_one_batch((state, first, most))
    state = jax.tree.map(of_each, state)
    V, dtype = check_logits(step, state, of_each(first))
    ends, functions = check_end(end, V), check_process(process)
    power = jnp.asarray(length_penalty, dtype)
    penalty = lambda n: ((5 + jnp.asarray(n, dtype)) / 6) ** power

    def goes_on(carry: Any) -> Array:
        t, _, alive, done = carry
        worst = _rank(done.scores)[:, n_best - 1]
        # what ends later is not above its bound, and comes behind what is equal
        return jnp.any((t < most) & (_bound(alive, most, penalty) > worst))

    def body(carry: Any) -> Any:
        t, state, alive, done = carry
        last = lax.dynamic_index_in_dim(alive.tokens, t - 1, 2, False)
        inputs = jnp.where(t == 0, first[:, None], jnp.maximum(last, 0))
        state, logits = step(state, flat(inputs))
        logits = processed(functions, logits.astype(dtype), flat(alive.tokens), t)
        log_p = of_beams(log_probs(logits))
        grown, source, ended = _grow(alive, log_p, t, ends)
        finished = _finish(grown, ended, K, penalty)
        more = _best(K, done, finished, _cut(alive, log_p))
        longer, source = _keep(grown, source, ended, K)
        state = jax.tree.map(lambda a: flat(_pick(of_beams(a), source)), state)
        pair = select_rows(t < most, (longer, more), (alive, done))
        return t + 1, state, *pair

    fill = filler(ends)
    tokens = jnp.full((B, K, L), fill, jnp.int32)
    nothing = jnp.full((B, K), -jnp.inf, dtype)
    zeros = jnp.zeros((B, K), jnp.int32)
    alive = Decoded(tokens, zeros, nothing.at[:, 0].set(0))
    nothing = Decoded(tokens, zeros, nothing)
    _, alive, nothing = as_one_batch((first, alive, nothing))
    start = jnp.int32(0), state, alive, nothing
    *_, alive, done = while_loop(goes_on, body, start)
    # what never ended; after an early stop too low to come among the best
    alive = alive._replace(scores=alive.scores / penalty(alive.lengths))
    found = jax.tree.map(lambda a: a[:, :n_best], _best(K, done, alive))
    none = found.scores == -jnp.inf
    tokens = jnp.where(none[..., None], fill, found.tokens)
    return Decoded(tokens, jnp.where(none, 0, found.lengths), found.scores)


def _grow(
    alive: Decoded, log_p: Array, t: Array, ends: Array
) -> tuple[Decoded, Array, Array]:
    """The best ways to make the K sequences y of each row one token v longer, by

        log p(y v) = log p(y) + log p(v | y).

    With E end tokens at most E K of the ways end, so K that go on are among the best
    (1 + E) K. Also returns which of the K each comes from, and whether it ends.
    """
    B, K, V = log_p.shape
    log_p = jnp.where(jnp.isnan(log_p), -jnp.inf, log_p)
    ways = (alive.scores[..., None] + log_p).reshape(B, K * V)
    scores, way = lax.top_k(ways, K * min(V, 1 + len(ends)))
    source, new = way // V, (way % V).astype(jnp.int32)
    tokens = _pick(alive.tokens, source)
    here = jnp.arange(tokens.shape[-1], dtype=jnp.int32) == t
    tokens = jnp.where(here, new[..., None], tokens)
    grown = Decoded(tokens, jnp.full_like(new, t + 1), scores)
    return grown, source, is_end(new, ends)


def _finish(grown: Decoded, ended: Array, K: int, penalty: Penalty) -> Decoded:
    """Of the K best ways those that end, with the score

    log p(y) / penalty(n),  penalty(n) = ((5 + n) / 6) ** length_penalty.
    """
    scores = jnp.where(ended, grown.scores, -jnp.inf) / penalty(grown.lengths)
    return jax.tree.map(lambda a: a[:, :K], grown._replace(scores=scores))


def _keep(grown: Decoded, source: Array, ended: Array, K: int) -> tuple[Decoded, Array]:
    """The K best ways that go on, and where each comes from."""
    first = jnp.argsort(ended, -1, stable=True)[:, :K]
    scores = jnp.where(ended, -jnp.inf, grown.scores)
    alive = jax.tree.map(lambda a: _pick(a, first), grown._replace(scores=scores))
    return alive, _pick(source, first)


def _cut(alive: Decoded, log_p: Array) -> Decoded:
    """Those that NaN keeps from going on, with the score NaN."""
    cut = jnp.isnan(log_p[..., 0]) & (alive.scores > -jnp.inf)
    return alive._replace(scores=jnp.where(cut, jnp.nan, -jnp.inf))


def _bound(alive: Decoded, most: Array, penalty: Penalty) -> Array:
    """The highest score that those which go on can end with, `(B,)`.

    Tokens only lower log p(y), which is at most 0, so it is that of the best, as if it
    were of the greatest length: max_y log p(y) / penalty(max_length).
    """
    return alive.scores[:, 0] / penalty(most)


def _best(K: int, *many: Decoded) -> Decoded:
    joined = jax.tree.map(lambda *a: jnp.concatenate(a, 1), *many)
    _, at = lax.top_k(_rank(joined.scores), K)
    return jax.tree.map(lambda a: _pick(a, at), joined)


def _rank(scores: Array) -> Array:
    """By which they are ordered: NaN below all scores, above what is not there."""
    return jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)


def _pick(a: Array, at: Array) -> Array:
    return jnp.take_along_axis(a, at.reshape(*at.shape, *[1] * (a.ndim - 2)), 1)
