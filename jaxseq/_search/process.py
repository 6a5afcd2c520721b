"""Changes of logits before a search takes its next token.

Each function is `(logits, tokens, n) -> logits` once its options are bound by
`functools.partial`: logits `(B, V)` and the tokens written so far, `(B, L)`, of which
the first n count. So a search takes them as its argument `process`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxseq._base.check import (
    as_array,
    check,
    check_dtype,
    check_number,
    check_sizes,
    check_tokens,
    check_value,
)
from jaxseq._search.step import check_end, is_end


def at_least(
    logits: ArrayLike,
    tokens: ArrayLike,
    n: ArrayLike,
    *,
    end: ArrayLike | Sequence[int],
    length: ArrayLike,
) -> Array:
    """Lets no sequence end before it has `length` tokens.

    Args:
        logits: of the next token, `(B, V)`.
        tokens: those written so far, `(B, L)`, filled up behind n.
        n: how many of them were written.
        end: token that ends a sequence, or several.
        length: fewest tokens before the end token, at least 0.

    Returns:
        The logits, `(B, V)`, those of end tokens -inf where n is less than `length`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> from functools import partial
        >>> step = lambda state, token: (state, jnp.array([[2.0, 0.0, 1.0]]))
        >>> how = {"end": 0, "process": partial(jaxseq.at_least, end=0, length=3)}
        >>> found = jaxseq.greedy(step, (), jnp.zeros(1, int), max_length=5, **how)
        >>> found.tokens.tolist()
        [[2, 2, 2, 0, 0]]
    """
    logits, _, n = _check(logits, tokens, n)
    V = logits.shape[-1]
    check(end is not None, "end", f"a token from 0 to {V - 1}, or several", end)
    ends = check_end(end, V)
    expected = "a whole number of at least 0"
    check_number(length, "length", expected, lambda a: a >= 0)
    check_value(not _is_float(length), "length", expected, length)
    ending = is_end(jnp.arange(V, dtype=jnp.int32), ends)
    return jnp.where(ending & (n < jnp.asarray(length)), -jnp.inf, logits)


def penalize_repetition(
    logits: ArrayLike, tokens: ArrayLike, n: ArrayLike, *, penalty: ArrayLike
) -> Array:
    """Makes tokens less probable that were written before.

    The logit x of such a token becomes x / penalty, or x * penalty if it is less than
    0, as else it would grow.

    Args:
        logits: of the next token, `(B, V)`.
        tokens: those written so far, `(B, L)`, filled up behind n.
        n: how many of them were written.
        penalty: a number above 0; 1 changes nothing, and less than 1 makes these
            tokens more probable.

    Returns:
        The logits, `(B, V)`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> logits = jnp.array([[3.0, 2.0, -1.0, 0.5]])
        >>> written = jnp.array([[0, 2, 0, 0]])
        >>> jaxseq.penalize_repetition(logits, written, 2, penalty=2.0).tolist()
        [[1.5, 2.0, -2.0, 0.5]]

    Keskar and others, "CTRL: A Conditional Transformer Language Model for
    Controllable Generation", 2019, https://arxiv.org/abs/1909.05858, section 4.1,
    which divides only.
    """
    logits, tokens, n = _check(logits, tokens, n)
    inside = lambda a: (a > 0) & (a < jnp.inf)
    check_number(penalty, "penalty", "a number above 0", inside)
    factor = jnp.asarray(penalty, logits.dtype)
    less = jnp.where(logits < 0, logits * factor, logits / factor)
    written = jnp.arange(tokens.shape[1], dtype=jnp.int32) < n
    return jnp.where(_standing(tokens, written, logits), less, logits)


def no_repeat_ngrams(
    logits: ArrayLike, tokens: ArrayLike, n: ArrayLike, *, size: int
) -> Array:
    """Lets no n-gram of `size` tokens come twice in a sequence.

    Args:
        logits: of the next token, `(B, V)`.
        tokens: those written so far, `(B, L)`, filled up behind n.
        n: how many of them were written.
        size: tokens of an n-gram, at least 1; with 1 no token comes twice.

    Returns:
        The logits, `(B, V)`, -inf for tokens that would repeat an n-gram.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> written = jnp.array([[1, 2, 3, 1, 2, 0]])
        >>> jaxseq.no_repeat_ngrams(jnp.zeros((1, 4)), written, 5, size=3).tolist()
        [[0.0, 0.0, 0.0, -inf]]

    Paulus, Xiong and Socher, "A Deep Reinforced Model for Abstractive
    Summarization", 2017, https://arxiv.org/abs/1705.04304, section 2.5.
    """
    logits, tokens, n = _check(logits, tokens, n)
    check_sizes(size=size)
    at = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    # where the size - 1 tokens before are the last ones that were written
    repeats = (at >= size - 1) & (at < n)
    for i in range(1, size):
        last = lax.dynamic_index_in_dim(tokens, n - i, 1)
        repeats = repeats & (jnp.roll(tokens, i, 1) == last)
    return jnp.where(_standing(tokens, repeats, logits), -jnp.inf, logits)


def _check(logits: Any, tokens: Any, n: Any) -> tuple[Array, Array, Array]:
    logits = as_array(logits, "logits")
    check_dtype(logits.dtype, "logits")
    check(logits.ndim == 2, "logits", "shape (B, V)", logits.shape)
    B = logits.shape[0]
    tokens = check_tokens(as_array(tokens, "tokens"), "tokens")
    ok = tokens.ndim == 2 and tokens.shape[0] == B
    check(ok, "tokens", f"shape ({B}, L)", tokens.shape)
    expected = "a whole number of at least 0"
    check_number(n, "n", expected, lambda a: a >= 0)
    check_value(not _is_float(n), "n", expected, n)
    return logits, tokens, jnp.asarray(n, jnp.int32)


def _is_float(number: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(number), jnp.floating)


def _standing(tokens: Array, where: Array, logits: Array) -> Array:
    """Which of the V tokens stand somewhere `where`, `(B, V)`."""
    V = logits.shape[-1]
    at = jnp.where(where, tokens, V)  # what is beyond is dropped
    one = lambda at: jnp.zeros(V, jnp.bool_).at[at].set(True, mode="drop")
    return jax.vmap(one)(at)
