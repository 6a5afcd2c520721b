"""A prompt, read before a search."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from jaxseq._base.buffers import apart
from jaxseq._base.check import (
    check,
    check_callable,
    check_lengths,
    check_tokens,
    extremes,
)
from jaxseq._base.mesh import as_one_batch, scan
from jaxseq._search.step import Step, check_room, check_state, check_step, select_rows


def prefill(
    step: Step, state: Any, prompt: ArrayLike, *, lengths: ArrayLike | None = None
) -> tuple[Any, Array]:
    """Runs `step` over all but the last token of each prompt.

    A state with a cache of limited size needs room for P - 1 tokens here, and for
    `max_length` more in the search that follows.

    Args:
        step: `(state, token) -> (state, logits)`.
        state: state before the prompt, leaves `(B, ...)`.
        prompt: tokens, `(B, P)`, padded behind `lengths`.
        lengths: tokens of each prompt, `(B,)`, at least 1; all P if None.

    Returns:
        `(state, token)`, to go on from: token `(B,)` is the last of each prompt.

    Raises:
        ValueError: if a shape, dtype or length does not fit, or the state is known to
            have too little room.

    Example:
        >>> step = lambda n, token: (n + 1, jnp.eye(4)[token])
        >>> prompt, lengths = jnp.array([[3, 1, 2], [2, 0, 0]]), jnp.array([3, 1])
        >>> n, token = jaxseq.prefill(step, jnp.zeros(2), prompt, lengths=lengths)
        >>> n.tolist(), token.tolist()
        ([2.0, 0.0], [2, 2])
    """
    check_callable(step, "step")
    tokens = check_tokens(prompt, "prompt")
    ok = tokens.ndim == 2 and tokens.shape[1] >= 1
    check(ok, "prompt", "shape (B, P) with P >= 1", tokens.shape)
    B, P = tokens.shape
    longest = P
    if lengths is None:
        ends = jnp.full(B, P, jnp.int32)
    else:
        ends = check_lengths(lengths, (B,), P, least=1)
        longest = max(extremes(lengths), default=P)
    state = check_state(state, B)
    check_room(state, longest, "prompt", unread=1)
    state, tokens, ends = as_one_batch((state, tokens, ends))
    check_step(step, state, tokens[:, 0])

    def body(state: Any, x: Any) -> tuple[Any, None]:
        t, token = x
        new, _ = step(state, token)
        return select_rows(t < ends - 1, new, state), None

    # a scan has to know that it has a step; that of the last token changes nothing
    most = P if is_symbolic_dim(P) else P - 1
    steps = jnp.arange(most, dtype=jnp.int32), tokens[:, :most].T
    state, _ = scan(body, state, steps)
    last = jnp.maximum(ends - 1, 0)
    state = apart(state)  # of one token it is as it came
    return state, jnp.take_along_axis(tokens, last[:, None], 1)[:, 0]
