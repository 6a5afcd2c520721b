"""Decoding with any step `(state, token) -> (state, logits)`.

Shapes: `token` is int32 `(B,)`, `logits` `(B, V)`, and the state any pytree with
leaves `(B, ...)`. What is decoded is a `Decoded`. All functions can be jitted over
the state and the tokens; they stop when every sequence has its end token. Where
`end` is None there is none, and all have `max_length` tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._cell import state_dtype
from jaxseq._check import check, check_lengths, check_sizes, check_tokens

Step = Callable[[Any, Array], tuple[Any, Array]]
Choose = Callable[[Array, Array], Array]  # number of the step, logits: tokens
NONE = -1  # no token


class Decoded(NamedTuple):
    """Decoded sequences; of a beam search with an axis of the n best behind B."""

    tokens: Array  # (B, L) int32, filled with the end token behind it
    lengths: Array  # (B,), the end token counted
    scores: Array  # (B,), sums of log-probabilities; of a beam search penalised


def prefill(
    step: Step, state: Any, prompt: Array, *, lengths: Array | None = None
) -> tuple[Any, Array]:
    """Runs `step` over all but the last token of each prompt.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state before the prompt, leaves `(B, ...)`.
        prompt: tokens, `(B, P)`, padded behind `lengths`.
        lengths: tokens of each prompt, `(B,)`, at least 1; all P if None.

    Returns:
        `(state, token)`, to go on from: token `(B,)` is the last of each prompt.

    Raises:
        ValueError: if a shape or dtype does not fit.
    """
    prompt = check_tokens(prompt, "prompt")
    ok = prompt.ndim == 2 and prompt.shape[1] >= 1
    check(ok, "prompt", "shape (B, P) with P >= 1", prompt.shape)
    B, P = prompt.shape
    if lengths is None:
        lengths = jnp.full(B, P, jnp.int32)
    lengths = check_lengths(lengths, (B,), P, least=1)
    state = _check_state(state, B)
    _check_step(step, state, prompt[:, 0])

    def body(state: Any, x: Any) -> tuple[Any, None]:
        t, token = x
        new, _ = step(state, token)
        return _where(t < lengths - 1, new, state), None

    steps = jnp.arange(P - 1, dtype=jnp.int32), prompt[:, :-1].T
    state, _ = lax.scan(body, state, steps)
    last = jnp.maximum(lengths - 1, 0)
    return state, jnp.take_along_axis(prompt, last[:, None], 1)[:, 0]


def greedy(
    step: Step, state: Any, token: Array, *, max_length: int, end: int | None
) -> Decoded:
    """Takes the most probable token at each step.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        max_length: most tokens of an output, L.
        end: token that ends a sequence, or None.

    Returns:
        `Decoded`.

    Raises:
        ValueError: if a shape, dtype or option does not fit.
    """
    choose = lambda _, logits: jnp.argmax(logits, -1)
    return _decode(step, choose, state, token, max_length, end)


def sample(
    step: Step,
    state: Any,
    token: Array,
    key: Array,
    *,
    max_length: int,
    end: int | None,
    temperature: float | Array = 1.0,
    top_k: int | None = None,
    top_p: float | Array | None = None,
) -> Decoded:
    """Draws each token from the distribution of its step.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        key: random key.
        max_length: most tokens of an output, L.
        end: token that ends a sequence, or None.
        temperature: divisor of the logits, a scalar above 0.
        top_k: number of most probable tokens to draw from, of equal ones those that
            stand first; all if None.
        top_p: probability, a scalar in (0, 1], that the fewest most probable tokens
            to draw from have together, after temperature and `top_k`; all if None.

    Returns:
        `Decoded`; scores are log-probabilities of the model itself, with neither
        temperature nor limits.

    Raises:
        ValueError: if a shape, dtype or option does not fit.

    For top-p see Holtzman and others, "The Curious Case of Neural Text
    Degeneration", 2020, https://arxiv.org/abs/1904.09751.
    """
    known = lambda value: not isinstance(value, jax.core.Tracer)
    ok = jnp.ndim(temperature) == 0 and (not known(temperature) or temperature > 0)
    check(bool(ok), "temperature", "a number above 0", temperature)
    if top_k is not None:
        check_sizes(top_k=top_k)
    if top_p is not None:
        ok = jnp.ndim(top_p) == 0 and (not known(top_p) or 0 < top_p <= 1)
        check(bool(ok), "top_p", "a probability in (0, 1]", top_p)

    def choose(t: Array, logits: Array) -> Array:
        # from the most probable down, or low temperatures overflow; its own 0 stays 0
        # where the temperature itself is too small for the dtype
        below = logits - logits.max(-1, keepdims=True)
        cooled = below / jnp.asarray(temperature, logits.dtype)
        limited = _limited(jnp.where(below == 0, below, cooled), top_k, top_p)
        return jax.random.categorical(jax.random.fold_in(key, t), limited)

    return _decode(step, choose, state, token, max_length, end)


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
    token = _tokens(token)
    (B,), K, L = token.shape, beam, max_length
    flat = lambda a: a.reshape(B * K, *a.shape[2:])
    of_beams = lambda a: a.reshape(B, K, *a.shape[1:])
    state = jax.tree.map(lambda a: jnp.repeat(a, K, 0), _check_state(state, B))
    V, dtype = _check_logits(step, state, jnp.repeat(token, K), end)
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
        lengths = jnp.full((B, 2 * K), t + 1, jnp.int32)
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
    start = jnp.int32(0), state, alive, Decoded(tokens, zeros, nothing)
    *_, alive, done = lax.while_loop(goes_on, body, start)
    # what never ended; after an early stop too low to come among the best
    alive = alive._replace(scores=alive.scores / penalty(alive.lengths))
    found = jax.tree.map(lambda a: a[:, :n_best], best(done, alive))
    none = found.scores == -jnp.inf
    tokens = jnp.where(none[..., None], end, found.tokens)
    return Decoded(tokens, jnp.where(none, 0, found.lengths), found.scores)


def _decode(
    step: Step,
    choose: Choose,
    state: Any,
    token: Array,
    max_length: int,
    end: int | None,
) -> Decoded:
    check_sizes(max_length=max_length)
    token = _tokens(token)
    B, L = *token.shape, max_length
    state = _check_state(state, B)
    _, dtype = _check_logits(step, state, token, end)
    end = NONE if end is None else end

    def goes_on(carry: Any) -> Array:
        t, _, _, done, _ = carry
        return (t < L) & ~done.all()

    def body(carry: Any) -> Any:
        t, state, token, done, decoded = carry
        state, logits = step(state, token)
        logits = logits.astype(dtype)
        new = choose(t, logits).astype(jnp.int32)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), new[:, None], 1)[:, 0]
        new = jnp.where(done, end, new)
        tokens, lengths, scores = decoded
        decoded = Decoded(
            lax.dynamic_update_index_in_dim(tokens, new, t, 1),
            lengths + (~done).astype(jnp.int32),
            scores + jnp.where(done, 0, log_p),
        )
        return t + 1, state, new, new == end, decoded

    empty = Decoded(
        jnp.full((B, L), end, jnp.int32), jnp.zeros(B, jnp.int32), jnp.zeros(B, dtype)
    )
    start = jnp.int32(0), state, token, jnp.zeros(B, jnp.bool_), empty
    return lax.while_loop(goes_on, body, start)[-1]


def _limited(logits: Array, top_k: int | None, top_p: Any) -> Array:
    """With -inf for what may not be drawn."""
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(logits, -1, descending=True)
    rank = jnp.argsort(order, -1)
    if top_k is not None:
        logits = jnp.where(rank < top_k, logits, -jnp.inf)
    if top_p is not None:
        p = jax.nn.softmax(jnp.take_along_axis(logits, order, -1))
        # a token stays if those before it do not reach top_p
        stays = jnp.cumsum(p, -1) - p < jnp.asarray(top_p, p.dtype)
        stays = jnp.take_along_axis(stays.at[..., 0].set(True), rank, -1)
        logits = jnp.where(stays, logits, -jnp.inf)
    return logits


def _where(on: Array, a: Any, b: Any) -> Any:
    """By sequence: `on` is (B,), leaves are (B, ...)."""
    wide = lambda a: on.reshape(-1, *[1] * (a.ndim - 1))
    return jax.tree.map(lambda a, b: jnp.where(wide(a), a, b), a, b)


def _tokens(tokens: Any) -> Array:
    tokens = check_tokens(tokens, "token")
    check(tokens.ndim == 1, "token", "one token each, (B,)", tokens.shape)
    return tokens


def _check_state(state: Any, B: int) -> Any:
    state = jax.tree.map(jnp.asarray, state)
    for a in jax.tree.leaves(state):
        check(a.shape[:1] == (B,), "state", f"arrays of shape ({B}, ...)", a.shape)
    return state


def _check_step(step: Step, state: Any, token: Array) -> Any:
    """Checks what a step makes of the state, and returns shape and dtype of logits."""
    found = jax.eval_shape(step, state, token)
    ok = isinstance(found, tuple) and len(found) == 2
    check(ok, "step", "(state, logits)", type(found).__name__)
    after, logits = found
    trees = [jax.tree.structure(a) for a in (state, after)]
    check(trees[0] == trees[1], "step", f"a state {trees[0]}", trees[1])
    for old, new in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        kinds = [f"{a.dtype} {a.shape}" for a in (old, new)]
        check(kinds[0] == kinds[1], "step", f"a state with {kinds[0]}", kinds[1])
    return logits


def _check_logits(
    step: Step, state: Any, token: Array, end: int | None
) -> tuple[int, Any]:
    """Number of tokens, and the dtype of log-probabilities."""
    logits = _check_step(step, state, token)
    ok = len(logits.shape) == 2 and logits.shape[0] == token.shape[0]
    check(ok, "step", f"logits ({token.shape[0]}, V)", logits.shape)
    ok = jnp.issubdtype(logits.dtype, jnp.floating)
    check(ok, "step", "logits of a float dtype", logits.dtype)
    V = logits.shape[1]
    ok = end is None or 0 <= end < V
    check(ok, "end", f"None or a token from 0 to {V - 1}", end)
    return V, state_dtype(logits.dtype)
