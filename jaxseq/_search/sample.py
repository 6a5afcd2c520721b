"""One token after the other: the most probable, or one that is drawn."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxseq._base.check import check_callable, check_key, check_number, check_sizes
from jaxseq._base.mesh import as_one_batch, while_loop
from jaxseq._search.decoded import Decoded
from jaxseq._search.log_probs import below_top, log_probs
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
)

Choose = Callable[[Array, Array], Array]  # number of the step, logits: tokens


def greedy(
    step: Step,
    state: Any,
    token: ArrayLike,
    *,
    max_length: int,
    end: ArrayLike | Sequence[int] | None,
    max_lengths: ArrayLike | None = None,
    process: Process | tuple[Process, ...] | None = None,
) -> Decoded:
    """Takes the most probable token at each step.

    A state with a cache of limited size needs room for P - 1 + `max_length` tokens, P
    being those of the prompt, or 1 with none. A row whose logits hold a NaN, or have
    no possible token, ends there, with the score NaN or -inf.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        max_length: most tokens of an output, L.
        end: token that ends a sequence, or several, or None.
        max_lengths: most tokens of each output, `(B,)`, from 0 to L; all L if None.
        process: function `(logits, tokens, n) -> logits`, such as `at_least`, or a
            tuple of these, each of which changes what those before it gave: `tokens`
            `(B, L)` are the n written so far, filled up behind them.

    Returns:
        `Decoded`; scores are of the logits that `process` gives.

    Raises:
        ValueError: if a shape, dtype or option does not fit, or the state is known to
            have too little room.

    Example:
        >>> step = lambda state, token: (state, jnp.eye(5)[(token + 1) % 5])
        >>> found = jaxseq.greedy(step, (), jnp.array([0, 2]), max_length=4, end=4)
        >>> found.tokens.tolist(), found.lengths.tolist()
        ([[1, 2, 3, 4], [3, 4, 4, 4]], [4, 2])
    """
    choose = lambda _, logits: jnp.argmax(logits, -1)
    how = max_length, end, max_lengths, process
    return _decode(step, choose, state, token, *how)


def sample(
    step: Step,
    state: Any,
    token: ArrayLike,
    key: Array,
    *,
    max_length: int,
    end: ArrayLike | Sequence[int] | None,
    max_lengths: ArrayLike | None = None,
    process: Process | tuple[Process, ...] | None = None,
    temperature: ArrayLike = 1.0,
    top_k: int | None = None,
    top_p: ArrayLike | None = None,
) -> Decoded:
    """Draws each token from the distribution of its step.

    A state with a cache of limited size needs room for P - 1 + `max_length` tokens, P
    being those of the prompt, or 1 with none. A row whose logits hold a NaN, or have
    no possible token, ends there, with the score NaN or -inf.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state to start from, leaves `(B, ...)`.
        token: first input of each sequence, `(B,)`.
        key: random key.
        max_length: most tokens of an output, L.
        end: token that ends a sequence, or several, or None.
        max_lengths: most tokens of each output, `(B,)`, from 0 to L; all L if None.
        process: function `(logits, tokens, n) -> logits`, or a tuple of these, applied
            before the next three; see `greedy`.
        temperature: divisor of the logits, at least 0, one or `(B,)`; at 0 the most
            probable token is taken, as by `greedy`.
        top_k: number of most probable tokens to draw from; all if None.
        top_p: probability in (0, 1], one or `(B,)`, after temperature and `top_k`. A
            token may be drawn if those more probable have less than that together.
            All may if it is 1 or None.

    Returns:
        `Decoded`; scores are of the logits that `process` gives, with neither
        temperature nor limits.

    Raises:
        ValueError: if a shape, dtype or option does not fit, or the state is known to
            have too little room.

    Example:
        >>> step = lambda state, token: (state, jnp.log(jnp.array([[0.4, 0.3, 0.3]])))
        >>> tokens, key = jnp.zeros(1, int), jax.random.key(0)
        >>> options = {"max_length": 50, "end": None, "top_p": 0.6}
        >>> found = jaxseq.sample(step, (), tokens, key, **options)
        >>> jnp.unique(found.tokens).tolist()
        [0, 1]

    Of tokens of the same probability, that of the lower index counts as the more
    probable. For top-p see Holtzman and others, "The Curious Case of Neural Text
    Degeneration", 2020, https://arxiv.org/abs/1904.09751.
    """
    check_key(key)
    token = check_token(token)
    _check_options(token.shape, temperature, top_k, top_p)

    def choose(t: Array, logits: Array) -> Array:
        # from the greatest down, or low temperatures overflow
        below, divisor = below_top(logits), jnp.asarray(temperature, logits.dtype)
        cooled = jnp.where(below == 0, 0, below / divisor[..., None])
        limited = _limited(cooled, top_k, top_p)
        drawn = jax.random.categorical(jax.random.fold_in(key, t), limited)
        return jnp.where(divisor > 0, drawn, jnp.argmax(logits, -1))

    how = max_length, end, max_lengths, process
    return _decode(step, choose, state, token, *how)


def _check_options(rows: Any, temperature: Any, top_k: Any, top_p: Any) -> None:
    expected = "a number of at least 0, or one for each row, (B,)"
    inside = lambda a: (a >= 0) & (a < jnp.inf)
    check_number(temperature, "temperature", expected, inside, rows)
    if top_k is not None:
        check_sizes(top_k=top_k)
    if top_p is not None:
        expected = "a probability in (0, 1], or one for each row, (B,)"
        check_number(top_p, "top_p", expected, lambda p: (p > 0) & (p <= 1), rows)


def _decode(
    step: Step,
    choose: Choose,
    state: Any,
    token: Any,
    max_length: int,
    end: Any,
    max_lengths: Any,
    process: Any,
) -> Decoded:
    check_callable(step, "step")
    check_sizes(max_length=max_length)
    token = check_token(token)
    B, L = *token.shape, max_length
    state = check_state(state, B)
    check_room(state, L, "max_length")
    most = check_most(max_lengths, B, L)
    state, token, most = as_one_batch((state, token, most))
    V, dtype = check_logits(step, state, token)
    ends, functions = check_end(end, V), check_process(process)
    fill = filler(ends)

    def goes_on(carry: Any) -> Array:
        *_, done, _ = carry
        return ~done.all()

    def body(carry: Any) -> Any:
        t, state, token, done, found = carry
        state, logits = step(state, token)
        logits = processed(functions, logits.astype(dtype), found.tokens, t)
        new = choose(t, logits).astype(jnp.int32)
        log_p = jnp.take_along_axis(log_probs(logits), new[:, None], 1)[:, 0]
        writes = ~done & (log_p > -jnp.inf)  # NaN and -inf: there is no next token
        new = jnp.where(writes, new, fill)
        found = Decoded(
            lax.dynamic_update_index_in_dim(found.tokens, new, t, 1),
            found.lengths + writes.astype(jnp.int32),
            found.scores + jnp.where(done, 0, log_p),
        )
        done = ~writes | is_end(new, ends) | (found.lengths >= most)
        return t + 1, state, jnp.maximum(new, 0), done, found

    tokens = jnp.full((B, L), fill, jnp.int32)
    empty = Decoded(tokens, jnp.zeros(B, jnp.int32), jnp.zeros(B, dtype))
    rows = state, token, most <= 0, empty
    start = jnp.int32(0), *as_one_batch(rows)
    return while_loop(goes_on, body, start)[-1]


def _limited(logits: Array, top_k: int | None, top_p: Any) -> Array:
    """With -inf for what may not be drawn; the greatest of the logits is 0.

    By probability from the greatest down, the i-th stays if

        i < top_k  and  sum_{j < i} p_j < top_p.
    """
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(logits, -1, stable=True, descending=True)
    rank = jnp.argsort(order, -1)
    if top_k is not None:
        logits = jnp.where(rank < top_k, logits, -jnp.inf)
    if top_p is not None:
        mass = jnp.exp(jnp.take_along_axis(logits, order, -1)).cumsum(-1)
        # the sum before, not the sum less its last term, which rounds
        before = jnp.concatenate([jnp.zeros_like(mass[..., :1]), mass[..., :-1]], -1)
        p = jnp.asarray(top_p, mass.dtype)[..., None]
        # k of n equal tokens have the probability k / n together, however that rounds
        rounding = 8 * jnp.finfo(mass.dtype).eps
        limit = p * (1 - rounding) * mass[..., -1:]
        stays = (before == 0) | (before < limit) | (p >= 1)
        stays = jnp.take_along_axis(stays, rank, -1)
        logits = jnp.where(stays, logits, -jnp.inf)
    return logits
