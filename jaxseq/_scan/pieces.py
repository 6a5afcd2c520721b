"""Long scans in pieces: the gradient keeps the states between them.

The steps of a piece are run again in the backward pass. `jaxseq._engine.pieces` does
the same for cells, and names the sources.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.export import is_symbolic_dim

Body = Callable[[Any, Any], tuple[Any, Any]]
# (body, state, xs, steps) -> (state, ys)
Run = Callable[[Body, Any, Any, Any], tuple[Any, Any]]


def over_pieces(
    run: Run, body: Body, init: Any, xs: Any, T: Any, K: int, reverse: bool
) -> tuple[Any, Any]:
    """Runs a body over K steps at a time; if K does not divide T, the last are fewer.

    A symbolic number of steps is rounded up to a multiple of K.
    """
    if is_symbolic_dim(T):
        N = -(-T // K)
        steps: Any = jnp.arange(N * K)
        over = steps < T, _longer(xs, N * K - T)
        state, ys = _run(run, _held(body), init, over, (N, K, 0), reverse)
        return state, jax.tree.map(lambda a: a[:T], ys)
    return _run(run, body, init, xs, (T // K, K, T % K), reverse)


def _run(
    run: Run, body: Body, init: Any, xs: Any, sizes: tuple[Any, int, int], reverse: bool
) -> tuple[Any, Any]:
    """Over N pieces of K steps, and the rest."""
    N, K, R = sizes

    def piece(steps: int) -> Any:
        return jax.checkpoint(lambda state, xs: run(body, state, xs, steps))

    whole, rest = xs, None
    if R:
        whole = jax.tree.map(lambda a: a[: N * K], xs)
        rest = jax.tree.map(lambda a: a[N * K :], xs)
    state, last = init, None
    if R and reverse:
        state, last = piece(R)(state, rest)
    whole = jax.tree.map(lambda a: a.reshape(N, K, *a.shape[1:]), whole)
    number = None if jax.tree.leaves(whole) else N  # it may not be symbolic
    state, ys = lax.scan(piece(K), state, whole, number, reverse)
    ys = jax.tree.map(lambda a: a.reshape(N * K, *a.shape[2:]), ys)
    if R and not reverse:
        state, last = piece(R)(state, rest)
    if R:
        ys = jax.tree.map(lambda *parts: jnp.concatenate(parts), ys, last)
    return state, ys


def _longer(xs: Any, more: Any) -> Any:
    """Inputs with more steps, all like the last."""

    def one(a: Array) -> Array:
        return jnp.concatenate([a, jnp.broadcast_to(a[-1:], (more, *a.shape[1:]))])

    return jax.tree.map(one, xs)


def _held(body: Body) -> Body:
    """A body whose state stands still at steps past the end."""

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        is_step, x = now
        new, y = body(state, x)
        if jax.tree.structure(new) != jax.tree.structure(state):
            return new, y  # which `lax.scan` says
        return jax.tree.map(lambda a, b: jnp.where(is_step, a, b), new, state), y

    return step
