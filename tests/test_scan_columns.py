"""Columns of products, followed through moves, and sums made of whole products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseq._engine.products import times
from jaxseq._scan.columns import all_columns, is_picked, joined, moved, picked
from jaxseq._scan.explain import explain
from jaxseq._scan.program import program_of
from jaxseq._scan.scan import scan
from tests.bodies import drawn

B, I, O = 3, 4, 24
RNG = np.random.default_rng(0)
X, W = drawn(RNG, B, I), drawn(RNG, I, O)
BLOCKS = drawn(RNG, 2, 2, 12)  # (N, I, O) of a product (B, 4) -> (B, 24)


def followed(f, z):
    """The columns that moves make of those of `z`, or None; and their values."""
    program = program_of(jax.make_jaxpr(f)(z).jaxpr)
    columns = {program.ins[0]: all_columns(z.shape)}
    for e in program.eqns:
        found = moved(e, columns[e.invars[0]])
        if found is None:
            return None
        columns.update(zip(e.outvars, found, strict=True))
    return [columns[v] for v in program.outs]


MOVES = {
    "nothing": lambda z: z,
    "a slice": lambda z: z[:, 6:12],
    "a split": lambda z: jnp.split(z, 3, -1)[1],
    "unequal parts": lambda z: jnp.split(z, [5, 7], -1)[1],
    "one column": lambda z: z[:, 7:8],
    "no column": lambda z: z[:, 7:7],
    "a part of no columns": lambda z: jnp.split(z, [5, 5], -1)[1],
    "parts beside one of none": lambda z: jnp.split(z, [5, 5], -1)[2],
    "no heads": lambda z: z.reshape(B, 4, 6)[:, 4:],
    "heads": lambda z: z.reshape(B, 4, 6),
    "a head": lambda z: z.reshape(B, 4, 6)[:, 2],
    "some heads": lambda z: z.reshape(B, 4, 6)[:, 1:3],
    "by gate": lambda z: z.reshape(B, 2, 3, 4).swapaxes(1, 2).reshape(B, O),
    "a gate of all heads": lambda z: z.reshape(B, 2, 3, 4).swapaxes(1, 2)[:, :1],
    "turned twice": lambda z: z.reshape(B, 2, 3, 4).transpose(0, 3, 1, 2),
    "axes of one": lambda z: z.reshape(B, 1, O, 1)[:, 0, :, 0],
    "in and out": lambda z: z.reshape(B, 4, 6).reshape(B, 12, 2).reshape(B, O),
    "there and back": lambda z: z.reshape(B, 4, 6).swapaxes(1, 2).swapaxes(1, 2),
    "a part of a part": lambda z: z[:, 4:20].reshape(B, 4, 4)[:, 1:],
}
UNSEEN = {
    "every other": lambda z: z[:, ::2],
    "rows": lambda z: z[1:],
    "rows turned": lambda z: z.T,
    "rows merged": lambda z: z.reshape(-1),
    "a shape that does not fit": lambda z: (
        z.reshape(B, 2, 12).swapaxes(1, 2).reshape(B, 8, 3)
    ),
    "reversed": lambda z: z[:, ::-1],
    "doubled": lambda z: z * 2,
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_moves(move):
    """A product with these columns of the matrix is what moves make of the whole."""
    (c,) = followed(move, X @ W)
    want = move(X @ W)
    np.testing.assert_array_equal((X @ W)[:, c.indices()].reshape(want.shape), want)
    if is_picked(W, c):
        got = (X @ picked(W, c)).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_columns_that_lie_apart_are_not_picked():
    (c,) = followed(MOVES["a gate of all heads"], X @ W)
    assert not is_picked(W, c)
    (c,) = followed(MOVES["by gate"], X @ W)
    assert is_picked(W, c)


def test_a_row_that_goes():
    z = (X @ W)[:1]
    assert followed(lambda z: z.reshape(1, O, 1).squeeze((0, 2)), z) is None
    (c,) = followed(lambda z: z.reshape(1, 1, O).squeeze(1), z)
    assert c.rows == (1,) and c.indices() == list(range(O))


@pytest.mark.parametrize("move", UNSEEN.values(), ids=UNSEEN)
def test_what_is_not_followed(move):
    found = followed(move, X @ W)
    assert found is None or not is_picked(W, found[0])


@pytest.mark.parametrize(
    "move, good",
    [
        (lambda z: z, True),
        (lambda z: z.reshape(B, 2, 3, 4).swapaxes(1, 2).reshape(B, O), True),
        (lambda z: z.reshape(B, 2, 4, 3).swapaxes(2, 3).reshape(B, O), False),
        (lambda z: z[:, :12], False),
    ],
)
def test_blocks(move, good):
    """Of blocks all columns are taken, as they lie or by gate."""
    z = times(X, BLOCKS)
    (c,) = followed(move, z)
    assert is_picked(BLOCKS, c) == good
    if good:
        got = times(X, picked(BLOCKS, c))
        np.testing.assert_allclose(got, move(z), rtol=1e-12, atol=1e-12)


def test_neighbours_are_joined():
    z = X @ W
    parts = [c for f in (MOVES["a slice"],) for c in followed(f, z)]
    parts += followed(lambda z: z[:, 12:20], z) + followed(lambda z: z[:, :3], z)
    whole = joined(parts)
    assert [c.indices() for c in whole] == [[*range(6, 20)], [0, 1, 2]]


T, D, H = 2, 3, 4
W_X, W_H, V = drawn(RNG, D, 3 * H), drawn(RNG, H, 3 * H), drawn(RNG, 3 * H)
STATE, XS = drawn(RNG, B, H), drawn(RNG, T, B, D)


def gates(h, x):
    a, b = jnp.split(x @ W_X + V, [2 * H], -1), jnp.split(h @ W_H, [2 * H], -1)
    s = jax.nn.sigmoid(a[0] + b[0])
    return jnp.tanh(a[1] + s[:, :H] * b[1]) * s[:, H:], None


def read_twice(h, x):
    a, b = (jnp.split(z, 3, -1) for z in (x @ W_X, h @ W_H))
    return jnp.tanh(a[0] + b[0]) * b[0] + jnp.tanh(a[1] + b[1]), None


def overlapping(h, x):
    a, b = x @ W_X, h @ W_H
    first, second = (a[:, i : i + H] + b[:, i : i + H] for i in (0, 2))
    return jnp.tanh(first) * jnp.tanh(second), None


def crossed(h, x):
    """Gates that are added to others of the input."""
    a, b = (jnp.split(z, 3, -1) for z in (x @ W_X, h @ W_H))
    return jnp.tanh(a[2] + b[0]) * jnp.tanh(a[0] + b[1] + V[:H]) + a[1] * b[2], None


def no_gate(h, x):
    """A split with a part of 0 columns, which is read too."""
    a, b = (jnp.split(z, [2 * H, 2 * H], -1) for z in (x @ W_X + V, h @ W_H))
    s = jax.nn.sigmoid(a[0] + b[0])
    none = (a[1] + b[1]).sum()
    return jnp.tanh(a[2] + s[:, :H] * b[2]) * s[:, H:] + none, none


def no_columns(h, x):
    """Slices of 0 columns, and their sum."""
    a, b = x @ W_X, h @ W_H
    return jnp.tanh(a[:, :H] + b[:, :H]), a[:, H:H] + b[:, H:H]


def only_no_columns(h, x):
    a, b = x @ W_X, h @ W_H
    return jnp.tanh(h + x[:, :1] + h @ W_H[:, :H]), a[:, H:H] + b[:, H:H]


SUMS = {
    gates: ["[4, 8], kept in a sum", "[4, 4], kept:"],
    read_twice: ["[4, 4], kept:", "[4, 4], kept in a sum"],
    overlapping: ["[4, 12], kept:"],
    no_gate: ["[4, 8], kept in a sum", "[4, 4], kept:"],
    only_no_columns: ["[4, 4], kept:", "[4, 0], kept in a sum"],
    no_columns: ["[4, 4], kept in a sum"],
    crossed: ["[4, 8], kept in a sum", "[4, 4], kept:"],
}


@pytest.mark.parametrize("body", SUMS)
def test_sums(body):
    lines = explain(body, STATE, XS).split("products for many")[0].split("\n")[1:-1]
    assert len(lines) == len(SUMS[body])
    assert all(want in line for want, line in zip(SUMS[body], lines, strict=True))
    loss = lambda run: lambda s: run(body, s, XS)[0].sum()
    got, want = (
        jax.jit(jax.value_and_grad(loss(run)))(STATE) for run in (scan, lax.scan)
    )
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-12, atol=1e-12)
