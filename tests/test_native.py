"""The native kernels for CPUs, against the plain scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from examples.cells.peephole_lstm import PEEPHOLE_LSTM
from examples.cells.projected_lstm import PROJECTED_LSTM
from examples.cells.reset_before_gru import RESET_BEFORE_GRU
from jaxseq._kernels.cpu import build, call

pytestmark = pytest.mark.usefixtures("native_library")

# float32: a sum of H products, over T steps
CLOSE = {
    jnp.float32: {"rtol": 1e-5, "atol": 2e-6},
    jnp.float64: {"rtol": 0, "atol": 1e-12},
}


def normal(seed, *shape, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def built_in(op, D, H, dtype):
    params = getattr(jaxseq, f"{op}_init")(jax.random.key(0), D, H, dtype=dtype)
    some = lambda a: a + normal(7, *a.shape, dtype=dtype) / 10
    return getattr(jaxseq, op), jax.tree.map(some, params)


def both(f, *args, **options):
    """What `f` gives by the native kernel and by the plain scan."""
    run = lambda name: jax.jit(lambda *args: f(*args, **options, implementation=name))
    return run("native")(*args), run("scan")(*args)


def check(pair, dtype):
    for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, **CLOSE[dtype])


SHAPES = [(3, 4, 5, 37), (70, 3, 4, 24), (1, 9, 16, 33), (2, 3, 1, 1), (5, 1, 3, 8)]


@pytest.mark.every(7)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_built_in(op, shape, dtype):
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    check(both(f, params, normal(1, B, T, D, dtype=dtype)), dtype)


def test_every_instruction_set(vectors):
    for dtype in CLOSE:
        f, params = built_in("lstm", 5, 37, dtype)
        check(both(f, params, normal(1, 9, 4, 5, dtype=dtype)), dtype)


@pytest.mark.parametrize("B, T", [(0, 3), (3, 0), (0, 0)])
def test_empty(B, T):
    f, params = built_in("gru", 3, 4, jnp.float64)
    check(both(f, params, normal(1, B, T, 3)), jnp.float64)


def masks_of(names, B, T):
    """The options of these names, the same each time."""
    rng = np.random.default_rng(5)
    every = {
        "lengths": jnp.asarray([0, 1, 3, 7, 6, 2]),
        "mask": jnp.asarray(rng.random((B, T)) < 0.6),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    return {name: every[name] for name in names.split()}


def state_of(op, B, H):
    parts = [normal(seed, B, H) for seed in (3, 4)]
    return jaxseq.LSTMState(*parts) if op == "lstm" else parts[0]


@pytest.mark.every(5)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(
    "names", ["", "lengths", "mask", "resets", "lengths resets", "mask lengths resets"]
)
def test_masks(op, names, reverse):
    B, T, D, H = 6, 7, 4, 9
    options = masks_of(names, B, T)
    f, params = built_in(op, D, H, jnp.float64)
    x = normal(1, B, T, D)
    if "lengths" in options:  # what is not valid is never read
        x = jnp.where(
            jnp.arange(T)[:, None] < options["lengths"][:, None, None], x, jnp.nan
        )
    check(
        both(f, params, x, state_of(op, B, H), reverse=reverse, **options), jnp.float64
    )


def test_start():
    params = jaxseq.cell_init(jax.random.key(0), 3, 20, (5, 20), dtype=jnp.float64)
    resets = jnp.asarray(np.random.default_rng(1).random((4, 6)) < 0.4)
    start = jaxseq.LSTMState(normal(2, 5), normal(3, 5))
    update = lambda z, s, w, _: _lstm(z + w(s.h), s.c)
    run = lambda params, x, implementation: jaxseq.cell(
        update, params, x, start=start, resets=resets, implementation=implementation
    )
    check(both(run, params, normal(1, 4, 6, 3)), jnp.float64)


def _lstm(z, c):
    i, f, g, o = jnp.split(z, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jaxseq.LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


CELLS = [PROJECTED_LSTM, RESET_BEFORE_GRU, PEEPHOLE_LSTM, MULTIPLICATIVE_LSTM]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("cell", CELLS)
def test_cells_of_users(cell, dtype):
    params = cell.init(jax.random.key(0), 3, 17, dtype=dtype)
    x = normal(1, 6, 5, 3, dtype=dtype)
    run = lambda params, x, implementation: jaxseq.cell(
        cell.update, params, x, cell.zeros(params, (6,)), implementation=implementation
    )
    check(both(run, params, x), dtype)


def gradients(f, params, x, **options):
    def run(params, x, implementation):
        value = lambda *args: f(*args, **options, implementation=implementation)
        out, back = jax.vjp(value, params, x)
        return out, back(jax.tree.map(lambda a: jnp.cos(a), out))

    return both(run, params, x)


@pytest.mark.every(4)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("names", ["", "mask", "lengths resets"])
def test_what_is_saved_for_gradients(op, names):
    B, T, D, H = 5, 4, 3, 9
    rng = np.random.default_rng(5)
    every = {
        "lengths": jnp.asarray([0, 1, 3, 4, 2]),
        "mask": jnp.asarray(rng.random((B, T)) < 0.6),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    options = {name: every[name] for name in names.split()}
    f, params = built_in(op, D, H, jnp.float64)
    check(gradients(f, params, normal(1, B, T, D), **options), jnp.float64)


@pytest.mark.every(3)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_cells_of_users(cell):
    params = cell.init(jax.random.key(0), 3, 6, dtype=jnp.float64)
    f = lambda params, x, implementation: jaxseq.cell(
        cell.update, params, x, cell.zeros(params, (4,)), implementation=implementation
    )
    check(gradients(f, params, normal(1, 4, 5, 3)), jnp.float64)


def bodies(H):
    w, u, v = normal(1, 3, 4 * H), normal(2, H, 4 * H) / 4, normal(3, 4 * H)
    w_1, u_1, c = normal(4, 3, H), normal(5, H, H) / 4, normal(6, 2 * H, H) / 4

    def lstm(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ w + h @ u + v, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def softplus(state, x):
        h, c = state
        n = jax.nn.softplus(x @ w_1 + jnp.maximum(h, 0) @ u_1)
        return (jnp.where(n > 1, jnp.log(n), c), n - 1), jnp.abs(h) * 2

    def joined(state, x):
        h, k = state
        new = jnp.tanh(x @ w_1 + jnp.concatenate([h * 2, k], -1) @ c)
        return (new, h), (new, k)

    return {"lstm": lstm, "softplus": softplus, "joined": joined}


@pytest.mark.parametrize("T", [6, 2])  # the matrices packed, and as they lie
@pytest.mark.parametrize("name", ["lstm", "softplus", "joined"])
def test_bodies_of_scans(name, T, monkeypatch):
    ran = []
    real = call.forward
    monkeypatch.setattr(call, "forward", lambda *args: (ran.append(1), real(*args))[1])
    body = bodies(9)[name]
    state, xs = (normal(7, 5, 9), normal(8, 5, 9)), normal(9, T, 5, 3)
    found = jaxseq.scan(body, state, xs)
    assert ran
    check((found, jax.lax.scan(body, state, xs)), jnp.float64)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(bad):
    f, params = built_in("lstm", 3, 5, jnp.float64)
    x = normal(1, 4, 6, 3).at[2, 3, 1].set(bad)
    pair = both(f, params, x)
    assert np.isnan(pair[1][1]).any() == np.isnan(bad)
    check(pair, jnp.float64)


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
