"""The native kernels for CPUs, forward alone, against the plain scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._kernels.cpu import build
from tests.native.problems import (
    CELLS,
    CLOSE,
    SHAPES,
    bodies,
    built_in,
    cell_run,
    check,
    lstm_step,
    masks_of,
    normal,
    only_valid,
    random_weights,
    state_of,
    values,
)

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.every(7)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_built_in(op, shape, dtype):
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    check(values(f, params, normal(1, B, T, D, dtype=dtype)), dtype)


def test_every_instruction_set(vectors):
    for dtype in CLOSE:
        f, params = built_in("lstm", 5, 37, dtype)
        check(values(f, params, normal(1, 9, 4, 5, dtype=dtype)), dtype)


@pytest.mark.parametrize("B, T", [(0, 3), (3, 0), (0, 0)])
def test_empty(B, T):
    f, params = built_in("gru", 3, 4, jnp.float64)
    check(values(f, params, normal(1, B, T, 3)))


@pytest.mark.every(5)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(
    "names", ["", "lengths", "mask", "resets", "lengths resets", "mask lengths resets"]
)
def test_masks(op, names, reverse):
    B, T, D, H = 6, 7, 4, 9
    options = masks_of(names)
    f, params = built_in(op, D, H, jnp.float64)
    x = only_valid(normal(1, B, T, D), options)
    check(values(f, params, x, state_of(op, B, H), reverse=reverse, **options))


def test_start():
    params = random_weights(jaxseq.cell_init, 3, 20, (5, 20))
    resets = jnp.asarray(np.random.default_rng(1).random((4, 6)) < 0.4)
    start = jaxseq.LSTMState(normal(2, 5), normal(3, 5))
    update = lambda z, s, w, _: lstm_step(z + w(s.h), s.c)
    run = lambda params, x, implementation: jaxseq.cell(
        update, params, x, start=start, resets=resets, implementation=implementation
    )
    check(values(run, params, normal(1, 4, 6, 3)))


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("cell", CELLS)
def test_cells_of_users(cell, dtype):
    params = random_weights(cell.init, 3, 17, dtype=dtype)
    x = normal(1, 6, 5, 3, dtype=dtype)
    check(values(cell_run(cell, 6), params, x), dtype)


@pytest.mark.parametrize("T", [6, 2])  # the matrices packed, and as they lie
@pytest.mark.parametrize("name", ["lstm", "softplus", "joined"])
def test_bodies_of_scans(name, T, ran):
    body = bodies(9)[name]
    state, xs = (normal(7, 5, 9), normal(8, 5, 9)), normal(9, T, 5, 3)
    found = jaxseq.scan(body, state, xs)
    assert ran == ["forward"]
    check((found, jax.lax.scan(body, state, xs)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(bad):
    f, params = built_in("lstm", 3, 5, jnp.float64)
    x = normal(1, 4, 6, 3)
    x[2, 3, 1] = bad
    pair = values(f, params, x)
    assert np.isnan(pair[1][1]).any() == np.isnan(bad)
    check(pair)


def test_other_programs_say_why():
    x, params = normal(1, 2, 3, 4), jaxseq.CellParams(None, None, None)
    refused = [
        (lambda z, s, w, e: jnp.sort(z), "sort"),
        (lambda z, s, w, e: lax.cumlogsumexp(z), "cumlogsumexp"),
        (lambda z, s, w, e: lax.lgamma(z), "lgamma"),
        (lambda z, s, w, e: z.astype(jnp.float32).astype(z.dtype), "convert"),
    ]  # fmt: skip
    for update, word in refused:
        with pytest.raises(ValueError, match=f"implementation.*{word}"):
            jaxseq.cell(update, params, x, zeros=4, implementation="native")


def test_off(monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    f, params = built_in("lstm", 3, 4, jnp.float64)
    with pytest.raises(ValueError, match="JAXSEQ_NATIVE is 0"):
        f(params, normal(1, 2, 11, 3), implementation="native")


def test_what_does_not_fit_is_an_error():
    target = jax.ffi.ffi_call(build.TARGET, jax.ShapeDtypeStruct((2, 2), jnp.float64))
    numbers = jnp.arange(9, dtype=jnp.int32)
    with pytest.raises(Exception, match="INVALID_ARGUMENT: jaxseq"):
        jax.block_until_ready(target(numbers, numbers, jnp.ones(3), jnp.ones((2, 2))))
