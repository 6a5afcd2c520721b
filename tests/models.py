"""What the tests of models share: checks of derivatives and a fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def assert_gradients(
    loss: Callable, args: Any, *, rtol: float, atol: float = 1e-5, eps: float = 1e-4
) -> Any:
    """Compares the gradients with differences along three directions; returns them.

    `loss` takes `args`, a tuple of float64 trees. Values and gradients are of one
    program, so that it is compiled once.
    """
    every = tuple(range(len(args)))
    run = jax.jit(jax.value_and_grad(lambda *args: loss(*args), every))
    _, grads = run(*args)
    rng = np.random.default_rng(0)
    for _ in range(3):
        away = jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), args)
        at = lambda e, away=away: run(*jax.tree.map(lambda a, d: a + e * d, args, away))
        slope = (at(eps)[0] - at(-eps)[0]) / (2 * eps)
        parts = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), grads, away)
        found = sum(jax.tree.leaves(parts))
        np.testing.assert_allclose(found, slope, rtol=rtol, atol=atol)
    return grads


def assert_second_derivatives(loss: Callable, args: Any, *, eps: float = 1e-4) -> None:
    """Compares first and second derivatives, in both modes, with differences."""

    @jax.jit
    def run(args, away):
        ahead = lambda f: lambda args: jax.jvp(f, (args,), (away,))[1]

        def back(f):
            def slope(args):
                parts = jax.tree.map(jnp.vdot, jax.grad(f)(args), away)
                return sum(jax.tree.leaves(parts))

            return slope

        f = lambda args: loss(*args)
        firsts = [ahead(f), back(f)]
        seconds = [mode(first)(args) for first in firsts for mode in (ahead, back)]
        return f(args), [first(args) for first in firsts], seconds

    rng = np.random.default_rng(0)
    for _ in range(3):
        away = jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), args)
        at = lambda e, away=away: run(
            jax.tree.map(lambda a, d: a + e * d, args, away), away
        )
        _, firsts, seconds = at(0.0)
        below, above = at(-eps), at(eps)
        for found, i in ((firsts, 0), (seconds, 1)):
            ends = (below[i], above[i]) if i == 0 else (below[1][1], above[1][1])
            slope = (ends[1] - ends[0]) / (2 * eps)
            np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-5)


def fit(loss: Callable, params: Any, *, rate: float, steps: int) -> tuple[Any, Any]:
    """The weights after `steps` of Adam, and the loss before each of them."""
    optimizer = optax.adam(rate)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(params):
        with jax.numpy_dtype_promotion("standard"):  # optax: decay ** count
            carry = params, optimizer.init(params)
            (params, _), values = jax.lax.scan(step, carry, length=steps)
        return params, values

    return run(params)
