"""Every cell, path and option, compiled as its users compile it.

The other tests compile with few of XLA's optimizations (see conftest.py). These run
with its defaults, by `make test-defaults`: values and gradients of each.
"""

from functools import cache, partial

import jax
import numpy as np
import pytest

from tests.cells import CELLS, assert_close, expected, random_problem, weighted_sum

# over a chunk of 8 steps, one of 4 and a rest
BATCH, T = (2, 2), 13
PROBLEM = {"batch": BATCH, "T": T, "D": 3, "H": 4}
ALL_VALID, NO_RESETS = np.full(BATCH, T), np.zeros((*BATCH, T), bool)
LENGTHS = np.array([[0, 13], [12, 5]])
RESETS = np.random.default_rng(5).random((*BATCH, T)) < 0.3
# by name the lengths and resets; those with values of both are one program
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS, "resets": NO_RESETS},
    "resets": {"lengths": ALL_VALID, "resets": RESETS},
    "both": {"lengths": LENGTHS, "resets": RESETS},
}
PATHS = {
    "default": {},
    "scan": {"implementation": "scan"},
    "remat": {"remat": 5},
}
CASES = [
    (name, path, reverse, option)
    for name in CELLS
    for path in PATHS
    for reverse in (False, True)
    for option in OPTIONS
    # an activation is no path of its own, and remat is the default within its pieces
    if (option, reverse) != ("plain", True)
    and (name != "rnn_relu" or (path, reverse) == ("default", True))
    and (path != "remat" or reverse or option == "plain")
]


@cache
def compiled(name, path, reverse):
    """Outputs alone, and outputs with the gradients of their weighted sum."""
    run = partial(CELLS[name].sequence, reverse=reverse, **PATHS[path])

    def with_gradients(problem, options):
        outputs, pullback = jax.vjp(partial(run, **options), *problem)
        return outputs, pullback(jax.grad(weighted_sum)(outputs))

    return jax.jit(run), jax.jit(with_gradients)


@pytest.mark.parametrize("name, path, reverse, option", CASES)
def test_values_and_gradients(name, path, reverse, option):
    cell, options = CELLS[name], OPTIONS[option]
    problem, direction = (random_problem(cell, **PROBLEM, seed=s) for s in (0, 1))
    alone, with_gradients = compiled(name, path, reverse)
    want = expected(cell, *problem, reverse=reverse, **options)
    if path == "default":  # which has chunks of another length without gradients
        assert_close(alone(*problem, **options), want)
    outputs, grads = with_gradients(problem, options)
    assert_close(outputs, want)
    leaves = map(jax.tree.leaves, (grads, direction))
    slope = sum((grad * along).sum() for grad, along in zip(*leaves, strict=True))

    def loss(step):
        moved = jax.tree.map(lambda a, along: a + step * along, problem, direction)
        return weighted_sum(expected(cell, *moved, reverse=reverse, **options))

    eps = 1e-4  # fourth order: the error is about eps^4 and 1e-16 / eps
    near, far = (loss(n * eps) - loss(-n * eps) for n in (1, 2))
    np.testing.assert_allclose(slope, (8 * near - far) / (12 * eps), atol=2e-8)
