"""Bodies whose rows are independent, and those that only look so."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseq._scan.analysis import given, planned
from jaxseq._scan.explain import explain
from jaxseq._scan.scan import scan
from tests.bodies import drawn
from tests.test_scan import assert_same

B, T, D, H = 32, 3, 8, 160
RNG = np.random.default_rng(0)
W_X, W_H = drawn(RNG, D, 2 * H), drawn(RNG, H, 2 * H) / H
XS = drawn(RNG, T, B, D), jnp.asarray(RNG.random((T, B)) < 0.2)
STATE = drawn(RNG, B, H), drawn(RNG, B, H)
KEY = jax.random.key(0)
ROW, R = drawn(RNG, B, 1), drawn(RNG, 4, 40, 40) / 40


@pytest.fixture(autouse=True)
def without_the_engine(monkeypatch):
    """Which shares out the rows by itself."""
    monkeypatch.setenv("JAXSEQ_NATIVE", "0")


def cell(s, x):
    (h, c), (x, reset) = s, x
    h = jnp.where(reset[:, None], 0, h)
    i, g = jnp.split(x @ W_X + h @ W_H, 2, -1)
    c = c + jax.nn.sigmoid(i) * jax.nn.silu(g)
    return (jnp.tanh(c) / (1 + (c**2).mean(-1, keepdims=True)), c), h.max(-1)


def heads(s, x):
    h = jnp.einsum("bgi,gio->bgo", s[0].reshape(B, 4, 40), R).reshape(B, H)
    return cell((h, s[1]), x)


def on_the_left(s, x):
    z = lax.dot_general(W_H, s[0], (((0,), (1,)), ((), ())))
    z = z.reshape(2 * H, -1, 1)[..., 0].T
    return (jnp.tanh(z[:, :H]), s[1]), z[:, H:] + x[0] @ W_X[:, :H]


@jax.custom_jvp
def with_ones(h):
    return h, jnp.ones((1, 1))


@with_ones.defjvp
def _(primals, tangents):
    return with_ones(*primals), (*tangents, jnp.zeros((1, 1)))


def of_one_row(s, x):
    return jax.vmap(lambda s, x: jax.tree.map(lambda a: a[0], cell(*_one(s, x))))(s, x)


def _one(s, x):
    return jax.tree.map(lambda a: a[None], (s, x))


INDEPENDENT = {
    "cell": cell,
    "vmap of a row": of_one_row,
    "weights on the left": on_the_left,
    "knows its number": lambda s, x: cell((s[0] * s[0].shape[0] / 40, s[1]), x),
    "written for its number": heads,
    "a function that gives a constant": lambda s, x: cell(
        (with_ones(s[0])[0] * with_ones(s[0])[1], s[1]), x
    ),
    "softplus": lambda s, x: cell((jax.nn.softplus(s[0]), s[1]), x),
    "relu": lambda s, x: cell((jax.nn.relu(s[0]), s[1]), x),
    "a count of the rows": lambda s, x: cell((s[0] / jnp.ones(B).sum(), s[1]), x),
    "a range of the rows": lambda s, x: cell(
        (s[0] * jnp.arange(1.0, s[0].shape[0] + 1).max() / 9, s[1]), x
    ),
    "a power of their number": lambda s, x: cell((s[0] ** s[0].shape[0], s[1]), x),
    "as many columns": lambda s, x: cell(
        (s[0] + s[0][:, : s[0].shape[0]].sum(1, keepdims=True), s[1]), x
    ),
    "random numbers for all": lambda s, x: cell(
        (s[0] * jax.random.uniform(KEY, (s[0].shape[0],)).sum(), s[1]), x
    ),
    "fixed and the same for all": lambda s, x: cell(
        (s[0] + jnp.broadcast_to(W_X[0, :H], (B, H)), s[1]), x
    ),
    "no input": lambda s, x: ((jnp.tanh(s[0] @ W_H)[:, :H], s[0]), s[1][:, 0]),
}
MIXED = {
    "normalised over rows": lambda s, x: cell((s[0] - s[0].mean(0), s[1]), x),
    "rolled": lambda s, x: cell((jnp.roll(s[0], 1, 0), s[1]), x),
    "reversed": lambda s, x: cell((s[0][::-1], s[1]), x),
    "attends to rows": lambda s, x: cell((s[0] @ s[0].T @ s[0] / 1e3, s[1]), x),
    "holds rows": lambda s, x: cell((s[0] * ROW, s[1]), x),
    "counts rows": lambda s, x: cell(
        (s[0] * jnp.arange(1.0, B + 1)[:, None] / B, s[1]), x
    ),
    "cumulative": lambda s, x: cell((jnp.cumsum(s[0], axis=0) / B, s[1]), x),
    "some rows": lambda s, x: cell((s[0].at[:3].set(0), s[1]), x),
    "the first for all": lambda s, x: cell((s[0][:1] + 0 * s[0], s[1]), x),
    "fixed rows, each a number of columns": lambda s, x: (
        cell((s[0], s[1]), x)[0],
        jnp.tanh(s[0][:, :B] + jnp.ones((B, 1)) * W_X[0, :B]),
    ),
    "a square of rows": lambda s, x: cell((s[0].at[:, :B].set(s[0][:, :B].T), s[1]), x),
    "rows as columns": lambda s, x: cell(
        (s[0] + jnp.pad(s[0][:, :B].T, ((0, 0), (0, H - B))), s[1]), x
    ),
    "sorted": lambda s, x: cell((jnp.sort(s[0], 0), s[1]), x),
    "a softmax of rows": lambda s, x: cell((jax.nn.softmax(s[0], 0), s[1]), x),
    "an output of all": lambda s, x: (cell(s, x)[0], s[0].sum(0)[:, None]),
}


def halved(body):
    return "the rows in two halves" in explain(body, STATE, XS)


@pytest.mark.every(2)
@pytest.mark.parametrize("body", INDEPENDENT.values(), ids=INDEPENDENT)
def test_independent(body):
    assert halved(body)
    assert_same(
        *(jax.jit(lambda r=run: r(body, STATE, XS))() for run in (scan, lax.scan))
    )


def test_halves_have_one_product_for_all_gates():
    """Where a gradient has one for each, as one gate is summed and another not."""

    def body(h, x):
        r, n = jnp.split(h @ W_H, 2, -1)
        s, m = jnp.split(x[0] @ W_X, 2, -1)
        h = jnp.tanh(m + jax.nn.sigmoid(r + s) * n)
        return h, h

    found = given(body, STATE[0], XS, None)
    assert not isinstance(found, str)
    plans = planned(found)
    assert not isinstance(plans, str)
    value: Any = plans.value
    assert value.halves and len(value.w_h) == 1 and len(plans.derivatives.w_h) == 2


def test_more_than_two_products_are_not_halved():
    def body(s, x):
        h, c = s
        (_, g), y = cell((h @ W_H[:, :H], c @ W_H[:, H:]), x)
        return (jnp.tanh(g), h), y

    assert "3 products in the loop" in explain(body, STATE, XS)
    assert not halved(body)


@pytest.mark.parametrize("body", MIXED.values(), ids=MIXED)
def test_mixed(body):
    assert not halved(body)
    assert_same(
        *(jax.jit(lambda r=run: r(body, STATE, XS))() for run in (scan, lax.scan))
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives(reverse):
    def results(run):
        f = lambda x: run(cell, STATE, (x, XS[1]), reverse=reverse)[0]
        loss = lambda x: sum(a.sum() for a in f(x))
        pair = jnp.stack([XS[0], 2 * XS[0]])
        return (
            jax.value_and_grad(loss)(XS[0]),
            jax.jvp(f, (XS[0],), (XS[0],)),
            jax.vmap(f)(pair),
        )

    assert_same(*(jax.jit(lambda r=run: results(r))() for run in (scan, lax.scan)))


@pytest.mark.parametrize("n", [1, 31])
def test_rows_of_an_odd_number(n):
    few = lambda tree, axis: jax.tree.map(
        lambda a: lax.slice_in_dim(a, 0, n, axis=axis), tree
    )
    state, xs = few(STATE, 0), few(XS, 1)
    assert_same(scan(cell, state, xs), lax.scan(cell, state, xs))


class Named(NamedTuple):
    y: Any


def test_structure_is_that_of_all_rows():
    """The body is run on as many rows as there are, and no others."""
    seen = []

    def body(s, x):
        seen.append(s[0].shape)
        state, y = cell(s, x)
        return state, {"y": Named(y), "last": jax.tree_util.Partial(max, s[0].shape[0])}

    got = scan(body, STATE, XS)
    assert set(seen) == {(B, H)}
    want = lax.scan(body, STATE, XS)
    assert jax.tree.structure(got) == jax.tree.structure(want)
