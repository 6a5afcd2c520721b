"""bfloat16 and float16 in the native kernels: sums and states are float32."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from jaxseq._kernels.cpu import call
from tests.cells import every_cell, expected, to_jax
from tests.native.problems import (
    SHAPES,
    built_in,
    cell_run,
    gradients,
    masks_of,
    normal,
    only_valid,
    random_weights,
    state_of,
)
from tests.test_dtypes import one_step_with_rounded_h, problem

pytestmark = pytest.mark.usefixtures("native_library")

TYPES = [jnp.bfloat16, jnp.float16]
every_type = pytest.mark.parametrize("dtype", TYPES)
eps = lambda dtype: float(jnp.finfo(dtype).eps)


@pytest.fixture(params=range(4), ids=["plain", "avx2", "avx512", "pairs"])
def vectors(request, monkeypatch):
    """The kernels, those of them that this processor has; new programs for each."""
    monkeypatch.setattr(call, "VECTORS", request.param)
    jax.clear_caches()
    yield
    jax.clear_caches()


class Two(NamedTuple):
    first: Any
    second: Any


def kept(params, x, state):
    """The state as it is given, as y too; the input as a state."""
    update = lambda z_x, state, w_h, extra: Two(state[0], z_x)
    run = partial(jaxseq.cell, update, implementation="native")
    return jax.jit(run)(params, x[:, None], state)


def all_of(dtype):
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def bits(a, kind):
    a = np.asarray(a)
    return np.where(np.isnan(a), np.uint16(0), a.view(kind))


@every_type
@pytest.mark.parametrize("width", [64, 251])  # whole vectors, and some that are not
def test_every_number_is_read_as_it_is(dtype, width, vectors):
    x = np.resize(all_of(dtype), (-(-(1 << 16) // width), width))
    wide = x.astype(np.float32)
    zeros = jnp.zeros(x.shape, jnp.float32)
    params = jaxseq.CellParams(None, None, None, jnp.zeros(1, dtype))
    (_, found), _ = kept(params, jnp.asarray(x), Two(zeros, zeros))
    np.testing.assert_array_equal(bits(found, np.uint32), bits(wide, np.uint32))
    assert np.array_equal(np.isnan(found), np.isnan(wide))


@every_type
@pytest.mark.parametrize("width", [64, 251])
def test_every_number_is_rounded_to_the_nearest(dtype, width, vectors):
    """Those halfway between two of the type, and those next to these."""
    some = all_of(dtype)
    with np.errstate(invalid="ignore"):
        some = np.sort(some[np.isfinite(some)].astype(np.float64))
    middles = ((some[1:] + some[:-1]) / 2).astype(np.float32)
    over = np.float32(jnp.finfo(dtype).max) * np.float32(1 + eps(dtype) / 4)
    rest = np.array([np.nan, np.inf, -np.inf, 0, over, -over, 3e38, -3e38], np.float32)
    around = [np.nextafter(middles, np.float32(s * np.inf)) for s in (-1, 1)]
    x = np.concatenate([middles, *around, some.astype(np.float32), rest])
    x = np.resize(x, (-(-x.size // width), width))
    params = jaxseq.CellParams(None, None, None, jnp.zeros(1, dtype))
    (state, _), y = kept(
        params, jnp.zeros(x.shape, dtype), Two(jnp.asarray(x), jnp.asarray(x))
    )
    with np.errstate(over="ignore"):
        want = x.astype(dtype)
    np.testing.assert_array_equal(bits(y[:, 0], np.uint16), bits(want, np.uint16))
    assert np.array_equal(np.isnan(np.asarray(y[:, 0])), np.isnan(want))
    np.testing.assert_array_equal(state, x)


@every_cell
@every_type
@pytest.mark.every(3)
@pytest.mark.parametrize("shape", [*SHAPES, (40, 6, 64, 64)])
def test_the_equations(cell, dtype, shape):
    B, T, D, H = shape
    (params, x, state), wide = problem(cell, dtype, batch=(B,), T=T, D=D, H=H)
    run = jax.jit(partial(cell.sequence, implementation="native"))
    end, y = run(params, x, state)
    assert y.dtype == dtype
    want_end, want = expected(cell, *wide)
    # h is rounded in each product, and y once
    near = partial(np.testing.assert_allclose, rtol=eps(dtype), atol=2 * eps(dtype))
    jax.tree.map(near, jax.tree.map(np.float64, end), want_end)
    near(np.float64(y), want)


@pytest.mark.every(7)
@every_cell
@every_type
@pytest.mark.parametrize("B", [1, 3, 20])  # the matrices as they lie, and packed
def test_sums_are_float32(cell, dtype, B, vectors):
    """A step rounds h, and only h, in its product."""
    (params, x, state), wide = problem(cell, dtype, batch=(B,), T=1, D=17, H=35)
    run = jax.jit(partial(cell.sequence, implementation="native"))
    end, y = run(params, x, state)
    hidden = np.asarray(jax.tree.leaves(state)[0])
    rounded = hidden.astype(dtype).astype(np.float64)
    weights, inputs, first = wide
    want = one_step_with_rounded_h(cell, weights, inputs, first, rounded)
    near = partial(np.testing.assert_allclose, rtol=3e-6, atol=3e-6)
    jax.tree.map(near, end, to_jax(want))
    last = jax.tree.leaves(end)[0].astype(dtype)
    np.testing.assert_array_equal(np.float32(y[:, 0]), np.float32(last))


def check(pair, dtype, ulps=4):
    for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.float32(a), np.float32(b)
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=ulps * eps(dtype))


@pytest.mark.every(5)
@every_type
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_gradients(op, shape, dtype, ran):
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    check(gradients(f, params, normal(1, B, T, D, dtype=dtype)), dtype)
    assert ran == ["forward", "backward"]


@pytest.mark.every(3)
@every_type
def test_gradients_by_each_kernel(dtype, vectors, ran):
    f, params = built_in("gru", 5, 37, dtype)
    check(gradients(f, params, normal(1, 9, 4, 5, dtype=dtype)), dtype)
    assert ran == ["forward", "backward"]


@pytest.mark.every(5)
@every_type
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("names", ["lengths", "mask", "resets", "mask lengths resets"])
def test_masks(names, reverse, dtype, ran):
    B, T, D, H = 6, 7, 5, 9
    options = masks_of(names)
    f, params = built_in("lstm", D, H, dtype)
    x = only_valid(normal(1, B, T, D, dtype=dtype), options)
    state = jax.tree.map(lambda a: a.astype(jnp.float32), state_of("lstm", B, H))
    start = jax.tree.map(lambda a: a[0] / 2, state)
    pair = gradients(f, params, x, state, start=start, reverse=reverse, **options)
    check(pair, dtype)
    assert ran == ["forward", "backward"]


@pytest.mark.every(3)
@every_type
@pytest.mark.parametrize("cell", [PEEPHOLE_LSTM, PROJECTED_LSTM])
def test_cells_of_users(cell, dtype, ran):
    params = random_weights(cell.init, 3, 9, dtype=dtype)
    x = normal(1, 5, 4, 3, dtype=dtype)
    check(gradients(cell_run(cell, 5), params, x), dtype)
    assert ran == ["forward", "backward"]


def bodies(dtype, H):
    """Bodies of 16 bits, with a state of 32, and with two types in its state."""
    w, u, v = (normal(n, k, H, dtype=dtype) / 3 for n, k in ((1, 3), (2, H), (3, 1)))
    wide = lambda a: a.astype(jnp.float32)

    def narrow(h, x):
        h = jnp.tanh(x @ w + h @ u + v[0])
        return h, (h * 2, h.sum(-1))

    def mixed(h, x):
        z = x @ w + h.astype(dtype) @ u
        h = jnp.tanh(wide(z) + wide(v[0]))
        return h, h.astype(dtype)

    def two(state, x):
        h, c = state
        c = 0.9 * c + wide(jnp.tanh(x @ w + h @ u))
        return (jnp.sin(c).astype(dtype), c), jax.lax.reduce_precision(c, 8, 7)

    h, c = normal(4, 5, H, dtype=dtype), normal(5, 5, H, dtype=jnp.float32)
    return {"narrow": (narrow, h), "mixed": (mixed, c), "two": (two, (h, c))}


@pytest.mark.every(3)
@every_type
@pytest.mark.parametrize("name", ["narrow", "mixed", "two"])
def test_bodies_of_scans(name, dtype, ran):
    body, state = bodies(dtype, 9)[name]
    xs = normal(9, 6, 5, 3, dtype=dtype)

    def run(scan, grad):
        f = partial(scan, body)
        if not grad:
            return f(state, xs)
        out, pull = jax.vjp(f, state, xs)
        return out, pull(jax.tree.map(jnp.cos, out))

    check(
        [jax.jit(partial(run, jaxseq.scan, False))(), run(jax.lax.scan, False)], dtype
    )
    assert ran == ["forward"]
    if name != "narrow":  # whose sum over a row has no way back
        pair = jax.jit(partial(run, jaxseq.scan, True))(), run(jax.lax.scan, True)
        check(pair, dtype, 8)
        assert ran == ["forward", "forward", "backward"]


@pytest.mark.every(3)
@every_type
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(bad, dtype, vectors):
    """D and H are odd: the last pair of each row has no second number."""
    f, params = built_in("lstm", 3, 5, dtype)
    x = normal(1, 12, 6, 3, dtype=dtype)
    x[2, 3, 0] = bad
    (_, y), (_, want) = (
        jax.jit(partial(f, implementation=name))(params, x)
        for name in ("native", "scan")
    )
    assert np.isnan(np.float32(want[2])).any() == np.isnan(bad)
    np.testing.assert_allclose(np.float32(y), np.float32(want), atol=2 * eps(dtype))


def test_nothing_is_read_behind_a_row_of_odd_width():
    """There is what the wider rows of the run before have left."""
    for D, factor in ((5, np.nan), (3, 1)):
        f, params = built_in("lstm", D, 5, jnp.bfloat16)
        x = (factor * normal(1, 12, 6, D)).astype(jnp.bfloat16)
        (_, y), (_, want) = (
            jax.jit(partial(f, implementation=name))(params, x)
            for name in ("native", "scan")
        )
    near = 2 * eps(jnp.bfloat16)
    np.testing.assert_allclose(np.float32(y), np.float32(want), atol=near)


def test_what_float16_is_too_small_for():
    """On the way back through a product, gradients have float32's exponents."""
    f, params = built_in("rnn", 3, 5, jnp.float16)
    params = jax.tree.map(lambda a: a / 2, params)
    x = normal(1, 4, 6, 3, dtype=jnp.float16)

    def run(name):
        value = lambda h: f(params, x, h, implementation=name)[1][:, -1]
        out, pull = jax.vjp(value, jnp.zeros((4, 5), jnp.float32))
        return pull(jnp.full_like(out, 2e-7))[0]

    found, want = jax.jit(run, static_argnums=0)("native"), run("scan")
    assert 0 < np.median(np.abs(want)) < 3e-8  # half the least number of float16
    np.testing.assert_allclose(found, want, rtol=1e-2)
