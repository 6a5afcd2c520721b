"""Integers in a step by the native kernels, against `lax.scan`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._kernels.cpu import call
from tests.native.problems import check, gradients, normal
from tests.test_native_rows import both, of_scan

pytestmark = pytest.mark.usefixtures("native_library")

PAIRS = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": lax.div,
    "rem": lax.rem,
    "floor_divide": jnp.floor_divide,
    "mod": jnp.mod,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "and": jnp.bitwise_and,
    "or": jnp.bitwise_or,
    "xor": jnp.bitwise_xor,
    "shift_left": lax.shift_left,
    "shift_right": lax.shift_right_logical,
    "shift_right_arithmetic": lax.shift_right_arithmetic,
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
    "clamp": lambda a, b: lax.clamp(jnp.minimum(a, b), a ^ b, jnp.maximum(a, b)),
    "select": lambda a, b: jnp.where(a < b, a, b + 1),
    "select of three": lambda a, b: lax.select_n(a.astype(jnp.int32), a, b, a - b),
    "neg": lambda a, b: -a,
    "not": lambda a, b: ~a,
    "abs": lambda a, b: abs(a),
    "sign": lambda a, b: jnp.sign(a),
    "square": lambda a, b: a**2,
    "cube": lambda a, b: lax.integer_pow(a, 3),
    "bool": lambda a, b: a.astype(bool),
    "of bool": lambda a, b: (a < b).astype(a.dtype),
    "constants": lambda a, b: a * a.dtype.type(jnp.iinfo(a.dtype).max - 5) + 3,
    "half of a sum": lambda a, b: (a + b) // 2,
    "of a product": lambda a, b: (a * b > a - b) ^ (~a < -b) ^ (abs(a) < a << 1),
    "int8": lambda a, b: a.astype(jnp.int8),
    "uint16": lambda a, b: a.astype(jnp.uint16),
    "int32": lambda a, b: a.astype(jnp.int32),
    "uint32": lambda a, b: a.astype(jnp.uint32),
    "sum": lambda a, b: a.sum(-1, dtype=a.dtype, keepdims=True),
    "prod": lambda a, b: b.prod(-1, dtype=a.dtype, keepdims=True),
    "largest": lambda a, b: b.max(-1, keepdims=True),
    "least": lambda a, b: a.min(-1, keepdims=True),
    "argmax": lambda a, b: lax.argmax(a ^ b, 1, jnp.int32),
    "argmin": lambda a, b: lax.argmin(a, 1, jnp.int32),
    "iota": lambda a, b: a + jnp.arange(a.shape[1], dtype=a.dtype),
}


def values(f, dtype, *xs):
    """What `f` gives at each step, beside a state of `dtype`, by both."""
    h, w = jnp.ones((xs[0].shape[1], 3), dtype), jnp.ones((3, 3), dtype)

    def body(h, xs):
        # what does not depend on the state would be computed outside of the loop
        on = (h[:, :1] > -2.0) & (h[:, 1:2] < 2.0)
        return jnp.tanh(h @ w), f(*(jnp.where(on, x, x * 0 + 1) for x in xs))

    return [
        jax.jit(lambda *xs, s=scan: s(body, h, xs)[1])(*xs)
        for scan in (jaxseq.scan, lax.scan)
    ]


def assert_same_bits(got, want):
    for name, a in want.items():
        assert got[name].dtype == a.dtype, name
        np.testing.assert_array_equal(got[name], a, name)


def edges(kind):
    info = jnp.iinfo(kind)
    some = [0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, 100, info.max, info.max - 1]
    some += [info.min, info.min + 1, info.max // 2]
    if info.min < 0:
        some += [-1, -2, -3, -7, -31, -64]
    a, b = np.meshgrid(np.array(some, kind), np.array(some, kind))
    # a few rows at two steps
    return jnp.asarray(a.reshape(2, 3, -1)), jnp.asarray(b.reshape(2, 3, -1))


OVER_ROWS = {
    "cumsum": lambda a, b: jnp.cumsum(a, axis=-1, dtype=a.dtype),
    "spread": lambda a, b: a[:, 2:3] * b,
    "turned": lambda a, b: jnp.concatenate([a[:, ::-1], b[:, :3]], -1),
    "last": lambda a, b: a.reshape(3, 2, 3).max(1).astype(a.dtype),
    "of parts": lambda a, b: a.reshape(3, 2, 3).sum(1, dtype=a.dtype),
    "cumprod": lambda a, b: lax.cumprod(b, 1, reverse=True),
    "largest so far": lambda a, b: lax.cummax(b, 1),
    "one-hot": lambda a, b: jax.nn.one_hot(a[:, 0] % 5, 5, dtype=a.dtype),
    "padded": lambda a, b: jnp.pad(a, ((0, 0), (2, 1))),
}


KINDS = {
    jnp.float32: "int8 uint8 int32 uint32".split(),
    jnp.float64: "int8 uint16 int32 uint32 int64 uint64".split(),
}
ALL = [(dtype, kind) for dtype, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("dtype", "kind"), ALL)
def test_operations(dtype, kind, ran):
    f = lambda a, b: {name: g(a, b) for name, g in PAIRS.items()}
    assert_same_bits(*values(f, dtype, *edges(kind)))
    assert "forward" in ran


@pytest.mark.parametrize(("dtype", "kind"), ALL[1::2])
def test_over_rows(dtype, kind, ran):
    f = lambda a, b: {name: g(a, b) for name, g in OVER_ROWS.items()}
    bits = np.random.default_rng(0).bytes(2 * 2 * 3 * 6 * 8)
    a, b = np.frombuffer(bits, kind)[: 2 * 2 * 3 * 6].reshape(2, 2, 3, 6)
    assert_same_bits(*values(f, dtype, jnp.asarray(a), jnp.asarray(b)))
    assert "forward" in ran


@pytest.mark.parametrize("vectors", [0, 1], ids=["plain", "avx2"])
@pytest.mark.parametrize(("dtype", "kind"), [ALL[2], ALL[-1]])
def test_operations_of_shorter_vectors(dtype, kind, vectors, ran, monkeypatch):
    monkeypatch.setattr(call, "VECTORS", vectors)
    jax.clear_caches()
    test_operations(dtype, kind, ran)
    jax.clear_caches()


@pytest.mark.parametrize("dtype", KINDS)
def test_conversions(dtype, ran):
    ends = [2.0**n for n in (7, 8, 15, 16, 31, 32, 63, 64)]
    some = [0.0, -0.0, 0.4, 0.9, 1.5, 300.7, 1e20, 1e-40, np.inf, np.nan, *ends]
    some += [np.nextafter(dtype(a), dtype(0)) for a in ends]
    x = np.array([*some, *(-a for a in some)], dtype)[None, None]
    names = [name for name in KINDS[dtype] if name != "int8"] + ["int16"]
    convert = lambda a: {name: a.astype(name) for name in names}
    assert_same_bits(*values(convert, dtype, jnp.asarray(x)))
    for kind in KINDS[dtype]:
        back = lambda a, b: {
            "float": a.astype(dtype),
            "power": 1.5 ** (a % 5).astype(dtype),
            "both": (a + b).astype(dtype) * a.astype(dtype),
        }
        assert_same_bits(*values(back, dtype, *edges(kind)))
    assert "forward" in ran


def test_the_first_of_the_largest(ran):
    x = np.random.default_rng(0).integers(-2, 3, (4, 3, 6)).astype(float)
    x[0, 1, 2:5] = np.nan
    x[1, 0, 3:] = [np.inf, -np.inf, np.nan]
    x[2, 0] = [-0.0, 0.0, -0.0, 0.0, -1.0, 0.0]
    f = lambda a: {
        "largest": a.argmax(-1),
        "least": a.argmin(-1),
        "of parts": a.reshape(3, 2, 3).argmax(1),
        "of others": a.reshape(3, 2, 3).argmin(2),
        "largest so far": lax.cummax(a, 1),
        "sums": jnp.cumsum(jnp.where(jnp.isfinite(a), a, 0), axis=1),
        "from the end": lax.cumsum(jnp.round(a), 1, reverse=True),
    }
    assert_same_bits(*values(f, jnp.float64, jnp.asarray(x)))
    assert "forward" in ran


def test_of_no_elements(ran):
    f = lambda a: {
        "any": (a[:, :0] > 0).any(1),
        "all": (a[:, :0] > 0).all(1),
        "sum": a[:, :0].sum(1),
        "largest": a[:, :0].max(1, initial=-jnp.inf),
        "integers": (a[:, :0].astype(int) + 1).astype(float).prod(1),
    }
    assert_same_bits(*values(f, jnp.float64, normal(1, 2, 3, 4)))
    assert "forward" in ran


def gated(state, x, w):
    """A clockwork RNN: parts of h with a clock of their own, of a counted step."""
    h, t = state
    new = jnp.tanh(x @ w["x"] + h @ w["h"])
    period = jnp.repeat(2 ** jnp.arange(2), 2)
    h = jnp.where(t % period == 0, new, h)
    return (h, t + 1), (h, t // 2)


def resettable(state, x, w):
    """A policy that counts its steps since the last reset, in each row."""
    h, t, seen = state
    reset = (t >= 2) & (x[:, 0] > 0)
    t = jnp.where(reset, 0, t + 1)
    h = jnp.where(reset[:, None], 0.0, h)
    z = x @ w["x"] + h @ w["h"]
    h = jnp.tanh(z) * jnp.exp2(-t.astype(h.dtype))[:, None]
    action = h.argmax(-1)
    seen = seen | (1 << action.astype(seen.dtype))[:, None]
    return (h, t, seen), {"h": h, "action": action, "seen": seen, "reset": reset}


def one_hot(state, x, w):
    """The choice of a step is read by the next one."""
    h, token = state
    h = jnp.tanh(jax.nn.one_hot(token, 4) @ w["h"] + x @ w["x"] + h)
    return (h, h.argmax(-1)), h


def switched(state, x, w):
    h, t = state
    z = jnp.tanh(x @ w["x"] + h @ w["h"])
    branches = jnp.sin, lambda z: z * w["b"], lambda z: z - h
    h = lax.switch(t % 4, branches, z)
    h = lax.cond(t > 2, lambda h: h, lambda h: 0.5 * h * w["b"].sum(), h)
    return (h, t + 1), (h, t)


def chosen(state, x, w):
    h, s = state
    z = x @ w["x"] + h @ w["h"]
    which = jnp.sign(z).astype(jnp.int32) + 1
    h = lax.select_n(which, jnp.tanh(z), z * z, jnp.sin(z * w["b"]))
    return (h, s + which), jnp.cumsum(h, axis=-1) * s[:, ::-1].astype(h.dtype)


BODIES = {
    "clocks": (gated, lambda: (normal(1, 3, 4), jnp.int64(0))),
    "resets": (
        resettable,
        lambda: (
            normal(1, 3, 4),
            jnp.arange(3, dtype=jnp.int32),
            jnp.zeros((3, 1), jnp.uint8),
        ),
    ),
    "one-hot": (one_hot, lambda: (normal(1, 3, 4), jnp.arange(3))),
    "switch": (switched, lambda: (normal(1, 3, 4), jnp.uint32(2**32 - 2))),
    "select": (chosen, lambda: (normal(1, 3, 4), jnp.zeros((3, 4), jnp.int32) - 1)),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body(name, ran):
    f, state = BODIES[name]
    w = {"x": normal(2, 3, 4), "h": normal(3, 4, 4) / 2, "b": normal(4, 4)}
    make = lambda w: partial(lambda w, state, x: f(state, x, w), w)
    check(of_scan(make, w, state(), normal(5, 7, 3, 3)))
    assert both(ran)


def test_an_integer_of_each_step(ran):
    """The index of the step and a token for each row, beside the input."""

    def make(w):
        def body(h, now):
            x, t, token = now
            on = (t + token)[:, None] % jnp.arange(1, 5) == 0
            h = jnp.where(on, jnp.tanh(x + h @ w), h)
            return h, (h, token + t)

        return body

    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 9, (6, 3)))
    xs = normal(1, 6, 3, 4), jnp.arange(6), tokens
    check(of_scan(make, normal(2, 4, 4), normal(3, 3, 4), xs))
    assert both(ran)


class Counting(NamedTuple):
    h: Any
    t: Any


@pytest.mark.parametrize("B", [1, 40])
def test_a_cell(B, ran):
    """Its steps are counted from each reset on, and some of them change nothing."""

    def update(z_x, state, w_h, extra):
        h, t = state
        n = t.astype(jnp.int32)
        new = jnp.where(n % 3 == 1, h, jnp.tanh(z_x + w_h(h)))
        return Counting(new, (n + 1).astype(t.dtype))

    params = jaxseq.CellParams(normal(1, 3, 5), normal(2, 5, 5), normal(3, 5), ())
    rng = np.random.default_rng(0)
    of = lambda p: jnp.asarray(rng.random((B, 6)) < p)
    state = Counting(normal(4, B, 5), jnp.zeros((B, 5)))
    how = {"mask": of(0.7), "resets": of(0.3), "reverse": True}

    def run(params, x, implementation):
        name = implementation
        return jaxseq.cell(update, params, x, state, implementation=name, **how)

    check(gradients(run, params, normal(5, B, 6, 3)))
    assert both(ran)


def test_a_number_in_the_state_goes_back(ran):
    def make(w):
        def body(state, now):
            h, s, t = state
            x, flag = now
            h = jnp.tanh(x + h @ w["h"]) * s
            s = jnp.where(flag, 0.9 * s * w["s"], jnp.sin(s))
            return (h, s, t + 1), (h, s, s * t * h)

        return body

    state = normal(1, 3, 4), jnp.asarray(0.5), jnp.asarray(1.0)
    w = {"h": normal(2, 4, 4), "s": jnp.asarray(0.7)}
    flags = jnp.asarray([True, False, True, True, False])
    check(of_scan(make, w, state, (normal(3, 5, 3, 4), flags)))
    assert both(ran)


def long(h):
    for _ in range(60):
        h = jnp.sin(h)
    return h


ONES = np.ones((4, 4), np.float32)
REFUSED = {
    "wide": (
        lambda h, x, n: (h, h.argmax(-1)),
        "the state is float32, and a row is int64",
    ),
    "wide inside": (
        lambda h, x, n: (h + (x * 3).astype(jnp.int64).astype(jnp.float32), None),
        "the kernel has no convert_element_type of float32[3,4] to int64[3,4]",
    ),
    "product": (
        lambda h, x, n: (h, h.astype(jnp.int32) @ ONES.astype(jnp.int32)),
        "the kernel has no dot_general of int32[3,4] to int32[3,4]",
    ),
    "bits": (
        lambda h, x, n: (h, lax.population_count(h.astype(jnp.int32))),
        "the kernel has no population_count of integers",
    ),
    "product in a branch": (
        lambda h, x, n: (lax.cond(n > 0, lambda h: h @ ONES, jnp.sin, h), None),
        "the kernel has no dot_general of float32[3,4] to float32[3,4]",
    ),
    "long branches": (
        lambda h, x, n: (lax.cond(n > 0, long, lambda h: long(-h), h), None),
        "the branches of a cond are long",
    ),
    "sums": (
        lambda h, x, n: (h, jnp.cumsum(jnp.tile(h, 9), axis=-1)),
        "the kernel has no cumsum of more than 32 elements",
    ),
    "rows": (
        lambda h, x, n: (h * jnp.arange(3, dtype=h.dtype)[:, None], None),
        "the kernel has no mul of float32[3,4] to float32[3,4]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_run(name, ran, refused):
    f, why = REFUSED[name]
    h, x = jnp.ones((3, 4), jnp.float32), jnp.ones((5, 3, 4), jnp.float32)
    body = lambda h, xs: f(jnp.tanh(h @ ONES), *xs)
    run = jax.jit(lambda *args: jaxseq.scan(body, args[0], args[1:]))
    run.lower(h, x, jnp.arange(5, dtype=jnp.int32))
    assert not ran and refused == [why]
