"""Every cell, path and option, compiled as its users compile it.

The other tests compile with few of XLA's optimizations (see conftest.py). These run
with its defaults, by `make test-defaults`: values and gradients of each.
"""

from functools import partial

import jax
import numpy as np
import pytest

from tests.cells import CELLS, assert_close, expected, random_problem, weighted_sum

# of four rows, so that all input maps are one block
BATCH, T = (2, 2), 13
PROBLEM = {"batch": BATCH, "T": T, "D": 3, "H": 4}
LENGTHS = np.array([[0, 13], [12, 5]])
RESETS = np.random.default_rng(5).random((*BATCH, T)) < 0.3
OPTIONS = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": RESETS},
    "all": {"lengths": LENGTHS, "resets": RESETS, "reverse": True},
}
PATHS = {
    "default": {},
    "loop": {"implementation": "loop"},
    "scan": {"implementation": "scan"},
    "remat": {"remat": 5},
}
CASES = [
    (name, path, option)
    for name in CELLS
    for path in PATHS
    for option in OPTIONS
    # an activation is no path of its own
    if name != "rnn_relu" or path == "default"
]


@pytest.mark.parametrize("name, path, option", CASES)
def test_values_and_gradients(name, path, option):
    cell, options = CELLS[name], OPTIONS[option]
    problem, direction = (random_problem(cell, **PROBLEM, seed=s) for s in (0, 1))
    run = partial(cell.sequence, **options, **PATHS[path])

    @jax.jit
    def everything(problem):
        outputs, pullback = jax.vjp(run, *problem)
        grads = pullback(jax.grad(weighted_sum)(outputs))
        # these run in another way without gradients
        alone = run(*problem) if path in ("default", "loop") else outputs
        return alone, outputs, grads

    alone, outputs, grads = everything(problem)
    want = expected(cell, *problem, **options)
    assert_close(alone, want)
    assert_close(outputs, want)
    leaves = map(jax.tree.leaves, (grads, direction))
    slope = sum((grad * along).sum() for grad, along in zip(*leaves, strict=True))

    def loss(step):
        moved = jax.tree.map(lambda a, along: a + step * along, problem, direction)
        return weighted_sum(expected(cell, *moved, **options))

    eps = 1e-4  # fourth order: the error is about eps^4 and 1e-16 / eps
    near, far = (loss(n * eps) - loss(-n * eps) for n in (1, 2))
    np.testing.assert_allclose(slope, (8 * near - far) / (12 * eps), atol=2e-8)
