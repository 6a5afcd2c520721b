"""What the tests of models share: checks of derivatives and a fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree


def drawn(init: Callable, *, seed: int) -> Any:
    """Weights of the shapes of `init(key)`, none zero or equal, as NumPy arrays.

    `init` is traced for the shapes and not run: JAX would compile each of its draws.
    """
    rng = np.random.default_rng(seed)

    def draw(w: Any) -> np.ndarray:
        return rng.standard_normal(w.shape) / np.sqrt(w.shape[0])

    return jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


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


def assert_second_derivatives(
    loss: Callable, args: Any, *, atol: float = 1e-5, eps: float = 1e-4
) -> None:
    """Compares first and second derivatives, in both modes, with differences.

    The second ones along two directions each, so that mixed terms are seen, and in
    the four orders of the modes.
    """
    f = lambda args: loss(*args)

    def ahead(f, away):
        return lambda args: jax.jvp(f, (args,), (away,))[1]

    def back(f, away):
        def slope(args):
            parts = jax.tree.map(jnp.vdot, jax.grad(f)(args), away)
            return sum(jax.tree.leaves(parts))

        return slope

    modes = ahead, back

    @jax.jit
    def values(args, one):
        return f(args), ahead(f, one)(args)

    @jax.jit
    def derivatives(args, one, two):
        firsts = [mode(f, one) for mode in modes]
        seconds = [mode(first, two)(args) for first in firsts for mode in modes]
        return [first(args) for first in firsts], seconds

    rng = np.random.default_rng(0)
    draw = lambda: jax.tree.map(lambda a: rng.standard_normal(np.shape(a)), args)
    for _ in range(2):
        one, two = draw(), draw()

        def slope(away, i, one=one):
            at = lambda e: jax.tree.map(lambda a, d: a + e * d, args, away)
            above, below = (values(at(e), one)[i] for e in (eps, -eps))
            return (above - below) / (2 * eps)

        firsts, seconds = derivatives(args, one, two)
        np.testing.assert_allclose(firsts, slope(one, 0), rtol=1e-5, atol=atol)
        np.testing.assert_allclose(seconds, slope(two, 1), rtol=1e-5, atol=atol)


def fit(loss: Callable, params: Any, *, rate: float, steps: int) -> tuple[Any, Any]:
    """The weights after `steps` of Adam, and the loss before each of them.

    All weights are one vector for Adam, which is then compiled for one.
    """
    optimizer = optax.adam(rate)
    _, restore = ravel_pytree(params)

    def step(carry, _):
        weights, state = carry
        value, grads = jax.value_and_grad(lambda w: loss(restore(w)))(weights)
        updates, state = optimizer.update(grads, state, weights)
        return (optax.apply_updates(weights, updates), state), value

    @jax.jit
    def run(params):
        weights, _ = ravel_pytree(params)
        with jax.numpy_dtype_promotion("standard"):  # optax: decay ** count
            carry = weights, optimizer.init(weights)
            (weights, _), values = jax.lax.scan(step, carry, length=steps)
        return restore(weights), values

    return run(params)
