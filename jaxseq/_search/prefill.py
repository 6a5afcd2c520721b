"""A prompt, read before a search."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim

from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_lengths, check_tokens
from jaxseq._base.mesh import as_one_batch, scan
from jaxseq._search.step import Step, check_state, check_step


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
    ends = check_lengths(lengths, (B,), P, least=1)
    state, prompt, ends = as_one_batch((check_state(state, B), prompt, ends))
    check_step(step, state, prompt[:, 0])

    def body(state: Any, x: Any) -> tuple[Any, None]:
        t, token = x
        new, _ = step(state, token)
        return _where(t < ends - 1, new, state), None

    # a scan has to know that it has a step; that of the last token changes nothing
    most = P if is_symbolic_dim(P) else P - 1
    steps = jnp.arange(most, dtype=jnp.int32), prompt[:, :most].T
    state, _ = scan(body, state, steps)
    last = jnp.maximum(ends - 1, 0)
    state = apart(state)  # of one token it is as it came
    return state, jnp.take_along_axis(prompt, last[:, None], 1)[:, 0]


def _where(on: Array, a: Any, b: Any) -> Any:
    """By sequence: `on` is (B,), leaves are (B, ...)."""
    wide = lambda a: on.reshape(-1, *[1] * (a.ndim - 1))
    return jax.tree.map(lambda a, b: jnp.where(wide(a), a, b), a, b)
