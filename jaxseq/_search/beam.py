"""Beam search."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.check import check, check_sizes
from jaxseq._base.mesh import as_one_batch, while_loop
from jaxseq._search.decoded import NONE, Decoded
from jaxseq._search.step import Step, check_logits, check_state, check_token


def beam_search(
    step: Step,
    state: Any,
    token: Array,
    *,
    max_length: int,
    end: int | None,
    beam: int,
    n_best: int = 1,
    length_penalty: float = 0.0,
) -> Decoded:
    """Searches for the sequences of the highest score, `beam` at a time.

    The score of n tokens, the end token counted, is their log-probability over
    `((5 + n) / 6) ** length_penalty`. A sequence may end where that is among the
    `beam` best of all ways to go on. The search stops when none that goes on can
    still come among the `n_best`.

    Args:
        step: `(state, token) -> (state, logits)`; it is given batches of B times
            `beam`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        max_length: most tokens of an output, L; what has no end by then counts as
            it is.
        end: token that ends a sequence, or None.
        beam: sequences kept at each step.
        n_best: number of sequences returned, at most `beam`.
        length_penalty: exponent, at least 0; 0 for none.

    Returns:
        `Decoded`: tokens `(B, n_best, L)`, lengths and scores `(B, n_best)`, the
        best first. Where fewer sequences are found the others are empty, of length 0
        and score -inf.

    Raises:
        ValueError: if a shape, dtype or option does not fit.

    Wu and others, "Google's Neural Machine Translation System", 2016,
    https://arxiv.org/abs/1609.08144, equation 14, without the coverage penalty.
    """
    check_sizes(max_length=max_length, beam=beam, n_best=n_best)
    check(n_best <= beam, "n_best", f"at most beam = {beam}", n_best)
    check(length_penalty >= 0, "length_penalty", "at least 0", length_penalty)
    token = check_token(token)
    (B,), K, L = token.shape, beam, max_length
    flat = lambda a: a.reshape(B * K, *a.shape[2:])
    of_each = lambda a: flat(jnp.broadcast_to(a[:, None], (B, K, *a.shape[1:])))
    of_beams = lambda a: a.reshape(B, K, *a.shape[1:])
    state, token = as_one_batch((check_state(state, B), token))
    state = jax.tree.map(of_each, state)
    V, dtype = check_logits(step, state, of_each(token), end)
    check(V >= 2, "step", "logits of 2 tokens or more", V)
    penalty = lambda n: ((5 + jnp.asarray(n, dtype)) / 6) ** length_penalty

    def pick(a: Array, at: Array) -> Array:
        return jnp.take_along_axis(a, at.reshape(*at.shape, *[1] * (a.ndim - 2)), 1)

    def best(*many: Decoded) -> Decoded:
        joined = jax.tree.map(lambda *a: jnp.concatenate(a, 1), *many)
        scores, at = lax.top_k(joined.scores, K)
        return Decoded(pick(joined.tokens, at), pick(joined.lengths, at), scores)

    def goes_on(carry: Any) -> Array:
        t, _, alive, done = carry
        # none that ends later is above this, and one that is equal comes behind
        bound = alive.scores[:, 0] / penalty(L)
        return (t < L) & jnp.any(bound > done.scores[:, n_best - 1])

    def body(carry: Any) -> Any:
        t, state, alive, done = carry
        before = lax.dynamic_index_in_dim(alive.tokens, t - 1, 2, False)
        inputs = jnp.where(t == 0, token[:, None], before)
        state, logits = step(state, flat(inputs))
        log_p = of_beams(jax.nn.log_softmax(logits.astype(dtype)))
        ways = (alive.scores[..., None] + log_p).reshape(B, K * V)
        scores, at = lax.top_k(ways, 2 * K)
        source, new = at // V, (at % V).astype(jnp.int32)
        tokens = pick(alive.tokens, source)
        tokens = jnp.where(jnp.arange(L, dtype=jnp.int32) == t, new[..., None], tokens)
        lengths = jnp.full_like(new, t + 1)
        ends = new == end
        ended = jnp.where(ends, scores, -jnp.inf)[:, :K] / penalty(t + 1)
        done = best(done, Decoded(tokens[:, :K], lengths[:, :K], ended))
        # the first of the 2K that do not end; at most K of them do
        first = jnp.argsort(ends, -1, stable=True)[:, :K]
        alive = Decoded(*(pick(a, first) for a in (tokens, lengths, scores)))
        source = pick(source, first)
        state = jax.tree.map(lambda a: flat(pick(of_beams(a), source)), state)
        return t + 1, state, alive, done

    end = NONE if end is None else end
    tokens = jnp.full((B, K, L), end, jnp.int32)
    nothing = jnp.full((B, K), -jnp.inf, dtype)
    zeros = jnp.zeros((B, K), jnp.int32)
    alive = Decoded(tokens, zeros, nothing.at[:, 0].set(0))
    nothing = Decoded(tokens, zeros, nothing)
    _, alive, nothing = as_one_batch((token, alive, nothing))
    start = jnp.int32(0), state, alive, nothing
    *_, alive, done = while_loop(goes_on, body, start)
    # what never ended; after an early stop too low to come among the best
    alive = alive._replace(scores=alive.scores / penalty(alive.lengths))
    found = jax.tree.map(lambda a: a[:, :n_best], best(done, alive))
    none = found.scores == -jnp.inf
    tokens = jnp.where(none[..., None], end, found.tokens)
    return Decoded(tokens, jnp.where(none, 0, found.lengths), found.scores)
