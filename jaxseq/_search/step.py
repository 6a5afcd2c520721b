"""What a search calls at each step, and checks of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.check import (
    as_int32,
    check,
    check_callable,
    check_lengths,
    check_tokens,
    check_value,
    extremes,
    is_whole,
    of_values,
)
from jaxseq._base.dtypes import state_dtype

Step = Callable[[Any, Array], tuple[Any, Array]]
# logits (B, V), tokens so far (B, L), how many of them there are: logits
Process = Callable[[Array, Array, Array], Array]


def check_token(tokens: Any) -> Array:
    tokens = check_tokens(tokens, "token")
    check(tokens.ndim == 1, "token", "one token each, (B,)", tokens.shape)
    return tokens


def check_state(state: Any, B: int) -> Any:
    state = jax.tree.map(lambda a: of_values(a, "state"), state)
    for a in jax.tree.leaves(state):
        check(a.shape[:1] == (B,), "state", f"arrays of shape ({B}, ...)", a.shape)
    return state


def check_room(state: Any, n: Any, name: str, unread: int = 0) -> None:
    """Checks that a state, if it knows how many tokens it can still take, can take n.

    Of them the last `unread` are not given to it.
    """
    left: Any = getattr(state, "left", None)
    if is_whole(left) and not is_symbolic_dim(n):
        most = left + unread
        expected = f"at most {most} tokens, as the state has room for {left} more"
        check(n <= most, name, expected, n)


def check_step(step: Step, state: Any, token: Array) -> Any:
    """Checks what a step makes of the state, and returns shape and dtype of logits."""
    check_callable(step, "step")
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


def check_logits(step: Step, state: Any, token: Array) -> tuple[int, Any]:
    """Number of tokens, and the dtype of log-probabilities."""
    logits = check_step(step, state, token)
    B = token.shape[0]
    ok = hasattr(logits, "shape") and len(logits.shape) == 2
    ok = ok and logits.shape[0] == B and logits.shape[1] >= 1
    got = getattr(logits, "shape", type(logits).__name__)
    check(ok, "step", f"logits ({B}, V)", got)
    ok = jnp.issubdtype(logits.dtype, jnp.floating)
    check(ok, "step", "logits of a float dtype", logits.dtype)
    return logits.shape[1], state_dtype(logits.dtype)


def check_end(end: Any, V: int) -> Array:
    """The tokens that end a sequence, `(E,)`; E is 0 for None."""
    if end is None:
        return jnp.zeros(0, jnp.int32)
    expected = f"None, a token from 0 to {V - 1}, or several of them"
    several = end if isinstance(end, (list, tuple)) else [end]
    is_token = lambda e: is_whole(e) or hasattr(e, "dtype")
    check_value(all(map(is_token, several)), "end", expected, end)
    ends = of_values(end, "end")
    ok = jnp.issubdtype(ends.dtype, jnp.integer) and ends.ndim <= 1 and ends.size > 0
    check_value(ok, "end", expected, end)
    for e in extremes(end):
        check(0 <= e < V, "end", expected, e)
    return as_int32(ends).reshape(-1)


def filler(ends: Array) -> Array:
    """What stands behind a sequence: its first end token, or -1 if there is none."""
    return ends[0] if len(ends) else jnp.int32(-1)


def is_end(token: Array, ends: Array) -> Array:
    return (token[..., None] == ends).any(-1)


def check_most(max_lengths: Any, B: int, L: int) -> Array:
    """The most tokens of each sequence, `(B,)`."""
    if max_lengths is None:
        return jnp.full(B, L, jnp.int32)
    return check_lengths(max_lengths, (B,), L, name="max_lengths")


def check_process(process: Any) -> tuple[Process, ...]:
    """The functions in the order in which they are applied."""
    if process is None:
        return ()
    functions = process if isinstance(process, tuple) else (process,)
    if not all(map(callable, functions)):
        expected = "None, a function or a tuple of functions"
        check_value(False, "process", expected, process)
    return functions


def processed(
    functions: tuple[Process, ...], logits: Array, tokens: Array, n: Array
) -> Array:
    for f in functions:
        found = f(logits, tokens, n)
        shape = getattr(found, "shape", type(found).__name__)
        check(shape == logits.shape, "process", f"logits {logits.shape}", shape)
        ok = jnp.issubdtype(found.dtype, jnp.floating)
        check(ok, "process", "logits of a float dtype", found.dtype)
        logits = found.astype(logits.dtype)
    return logits


def select_rows(on: Array, a: Any, b: Any) -> Any:
    """The rows of `a` where `on`, `(B,)`, else those of `b`; leaves are `(B, ...)`."""
    wide = lambda a: on.reshape(-1, *[1] * (a.ndim - 1))
    return jax.tree.map(lambda a, b: jnp.where(wide(a), a, b), a, b)
