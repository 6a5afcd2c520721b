"""What a search calls at each step, and checks of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check, check_tokens
from jaxseq._base.dtypes import state_dtype

Step = Callable[[Any, Array], tuple[Any, Array]]


def check_token(tokens: Any) -> Array:
    tokens = check_tokens(tokens, "token")
    check(tokens.ndim == 1, "token", "one token each, (B,)", tokens.shape)
    return tokens


def check_state(state: Any, B: int) -> Any:
    state = jax.tree.map(jnp.asarray, state)
    for a in jax.tree.leaves(state):
        check(a.shape[:1] == (B,), "state", f"arrays of shape ({B}, ...)", a.shape)
    return state


def check_step(step: Step, state: Any, token: Array) -> Any:
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


def check_logits(
    step: Step, state: Any, token: Array, end: int | None
) -> tuple[int, Any]:
    """Number of tokens, and the dtype of log-probabilities."""
    logits = check_step(step, state, token)
    ok = len(logits.shape) == 2 and logits.shape[0] == token.shape[0]
    check(ok, "step", f"logits ({token.shape[0]}, V)", logits.shape)
    ok = jnp.issubdtype(logits.dtype, jnp.floating)
    check(ok, "step", "logits of a float dtype", logits.dtype)
    V = logits.shape[1]
    ok = end is None or 0 <= end < V
    check(ok, "end", f"None or a token from 0 to {V - 1}", end)
    return V, state_dtype(logits.dtype)
