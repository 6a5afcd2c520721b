"""The backward pass of the native kernels, against that of the plain scan."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxseq
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from tests.native.problems import (
    CELLS,
    CLOSE,
    IN_PLACE,
    PIECES,
    SHAPES,
    bodies,
    built_in,
    cell_run,
    check,
    gradients,
    lstm_step,
    masks_of,
    normal,
    only_valid,
    random_weights,
    state_of,
)

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES + IN_PLACE + PIECES)
def test_built_in(op, shape, dtype, ran):
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    check(gradients(f, params, normal(1, B, T, D, dtype=dtype)), dtype)
    assert ran == ["forward", "backward"]


def test_every_instruction_set(vectors, ran):
    for dtype in CLOSE:
        f, params = built_in("lstm", 5, 37, dtype)
        check(gradients(f, params, normal(1, 9, 4, 5, dtype=dtype)), dtype)
    assert ran == ["forward", "backward"] * 2


# not whole vectors, whole ones, and units that threads share
@pytest.mark.every(11)
@pytest.mark.parametrize(("D", "H"), [(4, 9), (8, 16), (4, 120)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    "names",
    ["", "lengths", "mask", "resets", "lengths resets", "mask resets",
     "mask lengths resets"],
)  # fmt: skip
def test_masks(op, names, reverse, D, H, ran):
    B, T = 6, 7
    options = masks_of(names)
    f, params = built_in(op, D, H, jnp.float64)
    x = only_valid(normal(1, B, T, D), options)
    check(gradients(f, params, x, state_of(op, B, H), reverse=reverse, **options))
    assert ran == ["forward", "backward"]


@pytest.mark.parametrize("B, T", [(0, 3), (3, 0), (0, 0)])
def test_empty(B, T):
    f, params = built_in("gru", 3, 4, jnp.float64)
    check(gradients(f, params, normal(1, B, T, 3)))


@pytest.mark.every(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("names, B", [("resets", 4), ("resets mask", 40)])
def test_start(names, B, reverse, ran):
    """The same for all rows, or, in more than a block of rows, one for each."""
    params = random_weights(jaxseq.cell_init, 3, 20, (5, 20))
    rng = np.random.default_rng(1)
    every = {name: jnp.asarray(rng.random((B, 6)) < 0.5) for name in ("resets", "mask")}
    options: dict[str, Any] = {name: every[name] for name in names.split()}
    rows = () if B == 4 else (B,)
    state = jaxseq.LSTMState(normal(2, B, 5), normal(3, B, 5))
    start = jaxseq.LSTMState(normal(4, *rows, 5), normal(5, *rows, 5))
    update = lambda z, s, w, _: lstm_step(z + w(s.h), s.c)

    def run(params, x, state, start, implementation):
        return jaxseq.cell(
            update, params, x, state, start=start, reverse=reverse, **options,
            implementation=implementation,
        )  # fmt: skip

    check(gradients(run, params, normal(1, B, 6, 3), state, start))
    assert ran == ["forward", "backward"]


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("cell", CELLS)
def test_cells_of_users(cell, dtype, ran):
    params = random_weights(cell.init, 3, 17, dtype=dtype)
    lengths = jnp.asarray([5, 2, 0, 3, 5, 1])
    x = normal(1, 6, 5, 3, dtype=dtype)
    for options in ({}, {"lengths": lengths, "reverse": True}):
        check(gradients(cell_run(cell, 6, **options), params, x), dtype)
    assert ran == ["forward", "backward"] * 2


def test_sums_and_resets(ran):
    """Gradients of the update's own weights are sums that no reset ends."""
    rng = np.random.default_rng(1)
    resets = jnp.asarray(rng.random((4, 6)) < 0.5)
    options = {"resets": resets, "lengths": jnp.asarray([6, 0, 3, 5])}
    params = random_weights(PEEPHOLE_LSTM.init, 3, 7)
    run = cell_run(PEEPHOLE_LSTM, 4, **options)
    check(gradients(run, params, normal(1, 4, 6, 3)))
    assert ran == ["forward", "backward"]


def test_what_the_kernel_does_not_know_goes_to_the_loop(ran):
    params = random_weights(jaxseq.cell_init, 3, 5, (5, 5))
    # the derivative of `tan` reads `cos`, or the sum of a row
    update = lambda z, h, w, _: jnp.tanh(z + w(h)) * jax.lax.stop_gradient(h)
    rows = lambda z, h, w, _: odd(z + w(h))

    @jax.custom_jvp
    def odd(a):
        return jnp.tanh(a)

    odd.defjvps(lambda d, out, a: d * jnp.sort(1 - out**2))
    for f, times in ((update, 1), (rows, 1)):
        run = lambda params, x, implementation, f=f: jaxseq.cell(
            f, params, x, zeros=5, implementation=implementation
        )
        check(gradients(run, params, normal(1, 4, 6, 3)))
        assert ran.count("backward") == times


@pytest.mark.parametrize("name", ["lstm", "softplus", "joined"])
def test_bodies_of_scans(name, ran):
    body = bodies(9)[name]
    state, xs = (normal(7, 5, 9), normal(8, 5, 9)), normal(9, 6, 5, 3)

    def run(scan):
        out, pull = jax.vjp(lambda *args: scan(body, *args), state, xs)
        return out, pull(jax.tree.map(jnp.cos, out))

    found = jax.jit(partial(run, jaxseq.scan))()
    assert "backward" in ran
    check((found, run(jax.lax.scan)))


def test_weights_in_the_body_of_a_scan(ran):
    """Gradients that are sums over rows."""
    w, u = normal(1, 3, 8), normal(2, 8, 8) / 3

    def run(scan, u, a, b, state, xs):
        def body(h, x):
            z = jnp.tanh(x @ w + (a * h) @ u + b)
            return z * a, z * b

        return scan(body, state, xs)

    def one(scan):
        args = u, normal(3, 8), normal(4, 8), normal(5, 4, 8), normal(6, 6, 4, 3)
        out, pull = jax.vjp(lambda *args: run(scan, *args), *args)
        return out, pull(jax.tree.map(jnp.cos, out))

    found = jax.jit(partial(one, jaxseq.scan))()
    assert "backward" in ran
    check((found, one(jax.lax.scan)))


def loss(f, implementation, **options):
    def run(params, x):
        out = f(params, x, **options, implementation=implementation)
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(out))

    return run


def test_finite_differences():
    f, params = built_in("lstm", 3, 5, jnp.float64)
    run = loss(f, "native", lengths=jnp.asarray([4, 2]))
    check_grads(run, (params, normal(1, 2, 4, 3)), 1, ["rev"], 1e-6, 1e-6)


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_derivatives_of_derivatives(op, ran):
    f, params = built_in(op, 3, 5, jnp.float64)
    x, v = normal(1, 2, 4, 3), normal(2, 2, 4, 3)

    def second(name):
        run = loss(f, name)
        d = lambda params, x: (jax.grad(run, 1)(params, x) * v).sum()
        return jax.grad(d, (0, 1))(params, x), jax.hessian(run, 1)(params, x)

    check(tuple(jax.jit(partial(second, name))() for name in ("native", "scan")))
    assert "backward" in ran


@pytest.mark.every(2)
@pytest.mark.parametrize("options", [{"remat": 3}, {"remat": 2, "reverse": True}])
def test_remat(options, ran):
    f, params = built_in("lstm", 3, 5, jnp.float64)
    check(gradients(f, params, normal(1, 2, 7, 3), **options))
    assert "backward" in ran


def test_vmap(ran):
    f, params = built_in("gru", 3, 6, jnp.float64)
    x = normal(1, 4, 3, 5, 3)

    def rows(name):
        return jax.vmap(jax.grad(loss(f, name)), (None, 0))(params, x)

    def members(name):
        several = jax.tree.map(lambda a: jnp.stack([a, a * 1.1, a, -a]), params)
        return jax.vmap(jax.grad(loss(f, name)))(several, x)

    def time_major(name):
        run = lambda x: jax.vmap(lambda x: f(params, x, implementation=name)[1], 1)(x)
        return jax.grad(lambda x: jnp.sum(jnp.sin(run(x))))(x[0])

    for each in (rows, members, time_major):
        check(tuple(jax.jit(partial(each, name))() for name in ("native", "scan")))
    assert "backward" in ran


def test_the_same_bits_again():
    f, params = built_in("lstm", 8, 64, jnp.float32)
    x = normal(1, 40, 9, 8, dtype=jnp.float32)
    run = jax.jit(jax.grad(loss(f, "native"), (0, 1)))
    first = run(params, x)
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, run(params, x), first)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_stays_in_its_row(bad, ran):
    jax.clear_caches()
    f, params = built_in("lstm", 3, 5, jnp.float64)
    x = normal(1, 4, 6, 3)

    def run(name):
        _, pull = jax.vjp(lambda x: f(params, x, implementation=name)[1], x)
        return pull(jnp.ones((4, 6, 5)).at[2, 3, 1].set(bad))[0]

    a, b = (jax.jit(partial(run, name))() for name in ("native", "scan"))
    assert np.isfinite(a[jnp.asarray([0, 1, 3])]).all() and "backward" in ran
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
