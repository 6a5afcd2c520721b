"""What cells give over time, by a loop over rows and steps, and what runs a loop."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np

B, T, D, H = 3, 5, 2, 4
X = np.random.default_rng(0).standard_normal((B, T, D))
LENGTHS = np.array([T, 0, 3])
MASK = np.random.default_rng(1).random((B, T)) < 0.7
RESETS = np.random.default_rng(2).random((B, T)) < 0.4
VALID = MASK & (np.arange(T) < LENGTHS[:, None])


def by_hand(step, start, x, state, valid=VALID, resets=RESETS, reverse=False):
    """`(state, y)` of `step(state, x_t)`, of which a reset starts from `start`.

    The states, and the one to start from, have an axis for the rows.
    """
    row = lambda tree, i: jax.tree.map(lambda a: a[i], tree)
    ends, rows = [], []
    for i in range(B):
        now, begin = row(state, i), row(start, i)
        zero = jax.tree.map(jnp.zeros_like, step(now, x[i, 0])[1])
        outputs, ended = [zero] * T, False
        for t in np.flatnonzero(valid[i])[:: -1 if reverse else 1]:
            if ended or (resets[i, t] and not reverse):
                now = begin
            now, outputs[t] = step(now, x[i, t])
            ended = reverse and resets[i, t]
        ends.append(now)
        rows.append(stacked(outputs))
    return stacked(ends), stacked(rows)


def stacked(trees):
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def total(tree):
    """A sum of all floats, each with a weight of its own."""
    ramp = lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
    return sum((a * ramp(a)).sum() for a in jax.tree.leaves(tree))


def rows_summed(loss, weights):
    """Over how many rows products sum in the gradient of a loss.

    Those that make gradients of matrices sum over the rows of all steps, after a loop,
    or over those of one step inside of it.
    """
    text = jax.jit(jax.grad(loss)).lower(weights).as_text()
    line = r"dot_general.* contracting_dims = \[(.*)\] x .*: \(tensor<([x\d]+)xf64>"
    numbers = lambda text: [int(n) for n in re.findall(r"\d+", text)]
    found = [map(numbers, pair) for pair in re.findall(line, text)]
    return {math.prod(sizes[i] for i in axes) for axes, sizes in found if 0 in axes}
