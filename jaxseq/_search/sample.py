"""One token after the other: the most probable, or one that is drawn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._base.check import check, check_sizes
from jaxseq._base.mesh import as_one_batch, while_loop
from jaxseq._search.decoded import NONE, Decoded
from jaxseq._search.step import Step, check_logits, check_state, check_token

Choose = Callable[[Array, Array], Array]  # number of the step, logits: tokens


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


def _decode(
    step: Step,
    choose: Choose,
    state: Any,
    token: Array,
    max_length: int,
    end: int | None,
) -> Decoded:
    check_sizes(max_length=max_length)
    token = check_token(token)
    B, L = *token.shape, max_length
    state, token = as_one_batch((check_state(state, B), token))
    _, dtype = check_logits(step, state, token, end)
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
    rows = state, token, jnp.zeros(B, jnp.bool_), empty
    start = jnp.int32(0), *as_one_batch(rows)
    return while_loop(goes_on, body, start)[-1]


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
