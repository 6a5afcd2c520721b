"""Updates of a user's own, whatever they are: right, or refused by a message.

The default path and the one with `remat` are held to the plain scan, and that to
finite differences; `test_examples.py` holds published cells to their equations.
"""

import gc
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

import jaxseq
from jaxseq._engine import widths
from jaxseq._engine.step import Step
from tests.cells import assert_close, weighted_sum
from tests.models import assert_second_derivatives

B, T, D, H = 2, 5, 3, 4
close = partial(assert_close, rtol=1e-11, atol=1e-11)
PATHS = {
    "default": {},
    "loop": {"implementation": "loop"},
    "remat": {"remat": 2},
    "scan": {"implementation": "scan"},
}


class Pair(NamedTuple):
    h: Any
    c: Any


class Nested(NamedTuple):
    h: Any
    rest: Pair


def problem(w_h=(H, H), Z=H, state=H, extra=None, seed=0):
    """`(params, x, state)` of the shapes of `cell_init` and the widths of a state."""
    rng = np.random.default_rng(seed)
    is_shape = lambda a: type(a) is tuple
    # none of them zero or equal, and small enough for no state to grow
    draw = lambda shape: rng.standard_normal(shape) / np.sqrt(shape[-2])
    w_h = jax.tree.map(draw, w_h, is_leaf=is_shape)
    extra = jax.tree.map(rng.standard_normal, extra, is_leaf=is_shape)
    w_x, b = (None, None) if Z is None else (draw((D, Z)), rng.standard_normal(Z))
    params = jaxseq.CellParams(w_x, w_h, b, extra)
    state = jax.tree.map(lambda F: rng.uniform(-1, 1, (B, F)), state)
    return params, rng.standard_normal((B, T, D)), state


def with_gradients(run, args):
    """What a run gives under `jax.grad`, and its gradients by all arguments."""

    def loss(args):
        out = run(*args)
        return weighted_sum(out), out

    gradients, out = jax.grad(loss, has_aux=True)(args)
    return out, gradients


def check_run(run, args, *, smooth=True, paths=tuple(PATHS)):
    """All paths of `run(*args, path)` equal, gradients equal to differences if any."""

    @jax.jit
    def everything(args):
        of_each = [with_gradients(partial(run, path=path), args) for path in paths]
        alone = [path for path in paths if path in ("default", "loop")]
        return [run(*args, path=path) for path in alone], of_each

    alone, (*others, want) = everything(args)
    for got in alone:
        close(got, want[0])
    for got in others:
        close(got, want)
    if smooth:
        plain = jax.jit(partial(run, path="scan"))
        assert_slopes(lambda args: weighted_sum(plain(*args)), args, want[1])


def check(update, *, smooth=True, paths=tuple(PATHS), **sizes):
    def run(params, x, state, path):
        return jaxseq.cell(update, params, x, state, **PATHS[path])

    check_run(run, problem(**sizes), smooth=smooth, paths=paths)


def assert_slopes(loss, args, gradients):
    """Holds gradients to central differences along two directions."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        away = jax.tree.map(lambda a: rng.standard_normal(a.shape), args)
        at = lambda e, away=away: loss(jax.tree.map(lambda a, d: a + e * d, args, away))
        slope = (at(1e-6) - at(-1e-6)) / 2e-6
        pairs = zip(*map(jax.tree.leaves, (gradients, away)), strict=True)
        np.testing.assert_allclose(
            sum(np.vdot(*p) for p in pairs), slope, rtol=1e-6, atol=1e-6
        )


@jax.custom_vjp
def sign_of_first(a, b):
    return jnp.sign(a)


sign_of_first.defvjp(
    lambda a, b: (jnp.sign(a), a), lambda a, d: (d * jnp.cos(a), d * jnp.cos(a))
)


@jax.custom_jvp
def twice_the_slope(a):
    return jnp.tanh(a)


twice_the_slope.defjvp(lambda p, t: (jnp.tanh(*p), 2 * (1 - jnp.tanh(*p) ** 2) * t[0]))

stop = lax.stop_gradient
sigmoid = jax.nn.sigmoid
# an update of z_x, its product z and h, and whether differences tell its gradient
READ_TWICE: dict[str, tuple[Callable[..., Any], bool]] = {
    # z_x and z have one gradient, but the update reads more than their sum
    "a gate that is stopped": (
        lambda x, z, h: jnp.tanh(x + z) * stop(sigmoid(x)),
        False,
    ),
    "sign": (lambda x, z, h: jnp.tanh(jnp.sign(x) * (x + z)), True),
    "round": (lambda x, z, h: 0.5 * (x + z) + 0.1 * jnp.round(4 * x), True),
    "skip gate": (lambda x, z, h: jnp.where(x > 0, jnp.tanh(x + z), h), True),
    "all but the largest": (lambda x, z, h: jnp.where(x < x.max(), x + z, 0.0), True),
    "floor": (lambda x, z, h: jnp.tanh(x + z + jnp.floor(x)), True),
    "clip by a stop": (lambda x, z, h: jnp.clip(x + z, -1, stop(jnp.abs(z))), False),
    "custom_vjp": (lambda x, z, h: sign_of_first(x, z), False),
    # others that a careless reading of an update takes for a sum
    "the product twice": (lambda x, z, h: jnp.tanh(z + z), True),
    "the input twice": (lambda x, z, h: jnp.tanh(x + x) + 0 * z, True),
    "two sums": (lambda x, z, h: jnp.tanh(x + z) * sigmoid(z + x), True),
    "sum and product": (lambda x, z, h: jnp.tanh(x + z) + 0.1 * x * z, True),
    "difference": (lambda x, z, h: jnp.tanh(x - z), True),
    "sum by a matrix of ones": (
        lambda x, z, h: jnp.tanh(jnp.stack([x, z]).T @ jnp.ones(2)),
        True,
    ),
    "sum in a jit": (lambda x, z, h: jnp.tanh(jax.jit(jnp.add)(x, z)) * stop(x), False),
    "sum of halves": (
        lambda x, z, h: jnp.concatenate([x[:2] + z[2:], jnp.tanh(x[2:] + z[:2])]),
        True,
    ),
    "max": (lambda x, z, h: jnp.tanh(jnp.maximum(x, z) + h), True),
    "custom_jvp": (lambda x, z, h: twice_the_slope(x + z) + 0.5 * h, False),
    "cond on a row": (
        lambda x, z, h: lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, x + z),
        True,
    ),
    "scan in an update": (
        lambda x, z, h: lax.scan(lambda c, a: (jnp.tanh(c + a), c), z, jnp.outer(h, x))[
            0
        ],
        True,
    ),
    "while in an update": (
        lambda x, z, h: lax.fori_loop(0, 3, lambda i, a: jnp.tanh(a + x), z),
        True,
    ),
    "sorted": (lambda x, z, h: jnp.tanh(jnp.sort(x + z) + h[::-1]), True),
    "norm": (lambda x, z, h: (x + z) / jnp.linalg.norm(x + z) + 0.1 * h, True),
    "nothing of h": (lambda x, z, h: jnp.tanh(x) + 0 * z, True),
    "nothing of x": (lambda x, z, h: jnp.tanh(z), True),
    "nothing at all": (lambda x, z, h: jnp.ones_like(h), True),
}


@pytest.mark.parametrize("f, smooth", READ_TWICE.values(), ids=READ_TWICE)
def test_what_is_read(f, smooth):
    update = lambda z_x, h, w_h, _: f(z_x, w_h(h), h)
    check(update, smooth=smooth, paths=("default", "scan"))


def test_a_row_does_not_see_others():
    """A mean over the first axis of an update is one over a row."""

    def update(z_x, h, w_h, _):
        z = z_x + w_h(h)
        return jnp.tanh(z - z.mean(0))

    params, x, state = problem()
    run = jax.jit(partial(jaxseq.cell, update, params))
    rows = [run(x[i], state[i]) for i in range(B)]
    assert_close(run(x, state), jax.tree.map(lambda *a: jnp.stack(a), *rows))
    alone = np.tanh(x[0, 0] @ params.w_x + params.b + state[0] @ params.w_h)
    z = np.arctanh(alone)
    assert_close(run(x[0, :1], state[0])[0], np.tanh(z - z.mean()))


def unlike_parts(z_x, state, w_h, _):
    a = z_x + w_h(state.h)
    return Pair(jnp.tanh(a[:4]), state.c * 0.5 + jnp.sin(a[4:]))


def unlike_products(z_x, state, w_h, _):
    a = w_h["a"](state.h)
    return Pair(jnp.tanh(a + z_x), jnp.sin(w_h["b"](a[:2])[4:] + state.c))


def nested(z_x, state, w_h, _):
    h = jnp.tanh(z_x + w_h(state.rest.c))
    return Nested(h, Pair(state.h * state.rest.h, jnp.sin(state.h + state.rest.c)))


def unused(z_x, h, w_h, _):
    w_h["b"](z_x)
    return jnp.tanh(z_x + w_h["a"](h))


def all_ranks(z_x, h, w_h, extra):
    z = z_x + w_h(h * extra["row"]) * extra["scalar"] + extra["matrix"] @ h
    return jnp.tanh(z + jnp.einsum("i,j,ijk->k", h, z_x, extra["cube"]))


def bias_on_a_part(z_x, h, w_h, extra):
    a, b = jnp.split(w_h(h), 2)
    return jnp.tanh(z_x * (a + extra) + b)


def bias_twice(z_x, h, w_h, extra):
    a, b = jnp.split(w_h(h), 2)
    return jnp.tanh(z_x * (a + extra) + b + extra)


def chain_of_three(z_x, h, w_h, _):
    a = jnp.sin(w_h["b"](jnp.cos(w_h["a"](h))))
    return jnp.tanh(z_x + w_h["c"](a))


EXTRA = {"cube": (H, H, H), "matrix": (H, H), "row": (H,), "scalar": (1,)}
TWO = {"a": (H, H), "b": (H, 2)}
SIZES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "parts": (unlike_parts, {"w_h": (4, 6), "Z": 6, "state": Pair(4, 2)}),
    "products": (
        unlike_products,
        {"w_h": {"a": (4, 4), "b": (2, 6)}, "state": Pair(4, 2)},
    ),
    "nested": (nested, {"state": Nested(4, Pair(4, 4))}),
    "no w_x": (lambda x, h, w, _: jnp.tanh(w(h)) + 0.1 * x.sum(), {"Z": None}),
    "x in the sum": (
        lambda x, h, w, _: jnp.tanh(x + w(h)),
        {"Z": None, "state": D, "w_h": (D, D)},
    ),
    "no w_h": (lambda z, h, w, _: sigmoid(z) * h + 0.1 * z, {"w_h": None}),
    "extra alone": (
        lambda x, h, w, a: jnp.tanh(a * h) + 0.1 * x.sum(),
        {"Z": None, "w_h": None, "extra": (H,)},
    ),
    "never called": (lambda z, h, w, _: jnp.tanh(z + w["a"](h)), {"w_h": TWO}),
    "called in vain": (unused, {"w_h": TWO}),
    "three": (chain_of_three, {"w_h": {"a": (H, 2), "b": (2, 5), "c": (5, H)}}),
    "of z_x": (
        lambda z, h, w, _: jnp.tanh(w["a"](z) + w["b"](z * h)),
        {"w_h": {"a": (H, H), "b": (H, H)}},
    ),
    "of a constant": (lambda z, h, w, _: jnp.tanh(z + w(jnp.arange(4.0)) + h), {}),
    "blocks": (
        lambda z, h, w, _: jnp.tanh(z + w["a"](h) + w["b"](h)),
        {"w_h": {"a": (2, 2, 2), "b": (4, 1, 1)}},
    ),
    "extras of all ranks": (all_ranks, {"extra": EXTRA}),
    "extras that are not read": (
        lambda z, h, w, e: jnp.tanh(z + w(h) + e[1]),
        {"extra": [(H,), (H,), (2, 2)]},
    ),
    "bias on a part": (bias_on_a_part, {"w_h": (H, 2 * H), "extra": (H,)}),
    "bias on both parts": (bias_twice, {"w_h": (H, 2 * H), "extra": (H,)}),
    "bias on a part, twice": (
        lambda z, h, w, e: jnp.tanh(z + w(h) + jnp.concatenate([e, -e])),
        {"extra": (2,)},
    ),
    "the state as it is": (lambda z, h, w, _: h, {"w_h": None}),
}


@pytest.mark.every(3)
@pytest.mark.parametrize("update, sizes", SIZES.values(), ids=SIZES)
def test_matrices_parts_and_extras(update, sizes):
    check(update, **sizes)


def test_a_matrix_that_is_never_called_has_a_zero_gradient():
    update, sizes = SIZES["never called"]
    run = lambda *args: jaxseq.cell(update, *args)
    _, (params, _, _) = jax.jit(partial(with_gradients, run))(problem(**sizes))
    assert (params.w_h["b"] == 0).all() and (params.w_h["a"] != 0).all()


LENGTHS = np.array([T, 2])
VALID = {
    "lengths": {"lengths": LENGTHS},
    "mask": {"mask": np.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 0]], bool)},
    "all": {
        "lengths": LENGTHS,
        "mask": np.array([[0, 1, 1, 0, 1], [1, 0, 1, 1, 1]], bool),
        "resets": np.array([[0, 0, 1, 0, 1], [1, 1, 0, 0, 0]], bool),
        "reverse": True,
    },
}


def gated(z_x, state, w_h, extra):
    r = sigmoid(z_x + w_h["a"](state.h) + extra["start"].h)
    h = jnp.tanh(w_h["b"](r * state.h) + state.c.sum())
    return Pair(h, jnp.sin(state.c + r[:2] * extra["gain"]))


@pytest.mark.parametrize("kind", VALID)
def test_masks_resets_and_a_learned_start(kind):
    """Of a chain that reads other than h, with parts of unlike widths."""

    def run(params, x, state, path):
        options = {**VALID[kind], **PATHS[path], "start": params.extra["start"]}
        return jaxseq.cell(gated, params, x, state, **options)

    extra = {"gain": (2,), "start": Pair((H,), (2,))}
    w_h = {"a": (H, H), "b": (H, H)}
    check_run(run, problem(w_h=w_h, state=Pair(H, 2), extra=extra))


def test_a_run_begins_at_its_start():
    """Segments after a reset are the separate runs, where a start is not zero."""
    update, sizes = SIZES["parts"]
    params, x, _ = problem(**sizes)
    start = Pair(np.full(4, 0.3), np.full(2, -0.6))
    resets = np.arange(T) == 3
    for path in PATHS.values():
        run = jax.jit(partial(jaxseq.cell, update, params, start=start, **path))
        end, y = run(x[0], resets=resets)
        first, second = run(x[0, :3]), run(x[0, 3:])
        assert_close((end, y[:3], y[3:]), (second[0], first[1], second[1]))


def normed(z):
    return z / jnp.linalg.norm(z)


def roots(z_x, h, w_h, extra):
    return jnp.sqrt(jnp.abs(z_x)) + normed(w_h(h) * extra) + jnp.log(jnp.abs(h))


@pytest.mark.parametrize("update", [lambda z, h, w, _: normed(z + w(h)), roots])
def test_padding_makes_no_gradient_nan(update):
    """It is of zeros, where these updates have no derivative, as are masked steps."""
    params, x, state = problem(extra=(H,))
    params = params._replace(b=None)
    junk = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], x, np.nan)
    cell = partial(jaxseq.cell, update)

    def apart(params, x, state):
        """Each sequence by itself, as long as it is."""
        runs = [cell(params, x[i, :n], state[i]) for i, n in enumerate(LENGTHS)]
        ends, ys = zip(*runs, strict=True)
        ys = [jnp.pad(y, [(0, T - len(y)), (0, 0)]) for y in ys]
        return jnp.stack(ends), jnp.stack(ys)

    @jax.jit
    def everything(x, junk):
        padded = lambda *args, path: cell(*args, lengths=LENGTHS, **PATHS[path])
        of_each = [
            with_gradients(partial(padded, path=path), (params, junk, state))
            for path in PATHS
        ]
        return with_gradients(apart, (params, x, state)), of_each

    want, of_each = everything(x, junk)
    for got in of_each:
        close(got, want)


def test_second_derivatives_where_a_constant_is_infinite():
    """A state in log space that begins at log 0."""

    def update(z_x, state, w_h, _):
        z = z_x + w_h(state.h)
        m = jnp.maximum(state.c - 1, z)
        return Pair(jnp.tanh(z) * jnp.exp(-jnp.abs(m)), m)

    params, x, state = problem(state=Pair(H, H))
    state = state._replace(c=np.full((B, H), -np.inf))

    @jax.jit
    def second(x):
        def of(path):
            loss = lambda x: weighted_sum(
                jaxseq.cell(update, params, x, state, **PATHS[path])
            )
            inner = lambda x: jnp.sin(jax.grad(loss)(x)).sum()
            return jax.jvp(jax.grad(loss), (x,), (x,))[1], jax.grad(inner)(x)

        return [of(path) for path in PATHS]

    *others, want = second(x)
    assert all(np.isfinite(a).all() for a in want)
    for got in others:
        close(got, want)


@pytest.mark.parametrize("name", ["three", "parts"])
def test_derivatives_of_all_kinds(name):
    """First and second derivatives in both modes, of a chain and of unlike parts."""
    update, sizes = SIZES[name]
    args = problem(**sizes)
    loss = lambda *args: weighted_sum(jaxseq.cell(update, *args, lengths=LENGTHS))
    assert_second_derivatives(loss, args, atol=1e-6)


def test_vmap_of_everything():
    """Weights, inputs, states and what the update closes over, mapped and apart."""
    update, sizes = SIZES["three"]
    stack = lambda *a: np.stack(a)
    args = jax.tree.map(stack, *(problem(**sizes, seed=s) for s in range(3)))
    s = np.random.default_rng(0).standard_normal((3, H))

    @jax.jit
    def everything(args, s):
        def one(args, s, path):
            closing = lambda *args: update(*args) + s
            run = partial(jaxseq.cell, closing, **PATHS[path])
            return with_gradients(run, args), jax.grad(
                lambda s: weighted_sum(jaxseq.cell(lambda *a: update(*a) + s, *args))
            )(s)

        rows = [jax.tree.map(lambda a, i=i: a[i], (args, s)) for i in range(3)]
        apart = jax.tree.map(lambda *a: jnp.stack(a), *(one(*r, "scan") for r in rows))
        return [jax.vmap(partial(one, path=path))(args, s) for path in PATHS], apart

    of_each, want = everything(args, s)
    for got in of_each:
        close(got, want)


# arrays that an update closes over: where they enter, and what is theirs
CLOSED: dict[str, Callable[..., Any]] = {
    "in the output": lambda z, h, s: jnp.tanh(z) + s,
    "in a gate": lambda z, h, s: s * jnp.tanh(z) + h * sigmoid(s),
    "in a product": lambda z, h, s: jnp.tanh(z + jnp.outer(s, s) @ h),
    "not at all": lambda z, h, s: jnp.tanh(z),
}


@pytest.mark.parametrize("name", CLOSED)
def test_arrays_that_are_closed_over(name):
    """They have gradients on every path, as any weight has."""

    def run(s, params, x, state, path):
        update = lambda z_x, h, w_h, _: CLOSED[name](z_x + w_h(h), h, s)
        return jaxseq.cell(update, params, x, state, lengths=LENGTHS, **PATHS[path])

    s = np.random.default_rng(0).standard_normal(H)
    check_run(run, (s, *problem()))


def test_closed_arrays_of_any_dtype():
    """Concrete ones, of NumPy and of JAX, that are operands or constants."""
    steps, flags = np.arange(H), jnp.asarray([True, False, True, True])
    table, low = jnp.arange(8.0).reshape(2, H) / 9, jnp.ones(H, jnp.float16) / 3
    key = jax.random.key(3)

    def update(z_x, h, w_h, _):
        z = jnp.where(flags, z_x + w_h(h), table[1]) * (steps + 1).astype(float) / 4
        noise = jax.random.normal(key, (H,), float)
        return jnp.tanh(z + low.astype(float) + noise) + steps[::-1] * 0.01

    check(update)


def test_an_array_that_is_closed_over_may_change():
    """The run is of what it is at the call, as for any function that is not jitted."""
    params, x, state = problem()
    held = {"s": jnp.zeros(H)}
    update = lambda z_x, h, w_h, _: jnp.tanh(z_x + w_h(h)) + held["s"]
    first = jaxseq.cell(update, params, x, state)[1]
    held["s"] = jnp.ones(H)
    second = jaxseq.cell(update, params, x, state)[1]
    assert_close(second[:, 0], first[:, 0] + 1)


@pytest.fixture(scope="module")
def given():
    params, x, state = problem()
    return {
        "update": lambda z, h, w, _: jnp.tanh(z + w(h)),
        "params": params,
        "x": x,
        "state": state,
    }


A_ROW = "update: expected a matrix (4, 4) to be given a row (4,), got "
ONCE = "update: expected each matrix to be called at most once, got two calls"
TOP = "update: expected each matrix to be called at its top level, got inside "
NEW = "update: expected a state float64[4], got "
PARTS = "update: expected a state Pair(h=float64[4], c=float64[4]), got "
WRONG_UPDATES: dict[str, Callable[..., Any]] = {
    f"{NEW}NoneType": lambda z, h, w, _: None,
    f"{NEW}dict": lambda z, h, w, _: {"h": h},
    f"{NEW}tuple": lambda z, h, w, _: (h, h),
    f"{NEW}float": lambda z, h, w, _: 0.0,
    f"{NEW}float64[2]": lambda z, h, w, _: h[:2],
    f"{NEW}float64[1,4]": lambda z, h, w, _: h[None],
    f"{NEW}int64[4]": lambda z, h, w, _: (h > 0).astype(int),
    f"{NEW}bool[4]": lambda z, h, w, _: h > 0,
    f"{NEW}float32[4]": lambda z, h, w, _: h.astype(jnp.float32),
    f"{NEW}complex128[4]": lambda z, h, w, _: h.astype(complex),
    f"{A_ROW}float64 of shape (2,)": lambda z, h, w, _: w(h[:2]),
    f"{A_ROW}float64 of shape (1, 4)": lambda z, h, w, _: w(h[None])[0],
    f"{A_ROW}int64 of shape (4,)": lambda z, h, w, _: w(jnp.arange(4)),
    ONCE: lambda z, h, w, _: w(h) + w(z),
    f"{TOP}cond": lambda z, h, w, _: lax.cond(z[0] > 0, w, jnp.sin, h),
    f"{TOP}scan": lambda z, h, w, _: lax.fori_loop(0, 3, lambda i, c: w(c), h),
    f"{TOP}while": lambda z, h, w, _: lax.while_loop(lambda a: a[0] > 0, w, h),
    f"{TOP}jit": lambda z, h, w, _: jax.jit(w)(h),
    f"{TOP}remat2": lambda z, h, w, _: jax.checkpoint(w)(h),
    f"{TOP}a derivative": lambda z, h, w, _: jax.grad(lambda h: w(h).sum())(h),
    "update: expected each matrix to be given one row, got vmap": (
        lambda z, h, w, _: jax.vmap(w)(jnp.stack([z, h])).sum(0)
    ),
}


@pytest.mark.parametrize("message", WRONG_UPDATES)
def test_a_wrong_update(given, message):
    options = given | {"update": WRONG_UPDATES[message]}
    for call in jaxseq.cell, jax.jit(jaxseq.cell, static_argnums=0):
        assert message_of(call, *options.values()) == message
    step = list((options | {"x": given["x"][:, 0]}).values())
    step[2:] = step[:1:-1]  # the state before x
    assert message_of(jaxseq.cell_step, *step) == message


def message_of(call, *args, **options):
    with pytest.raises(ValueError) as error:
        call(*args, **options)
    return str(error.value)


S = np.ones((B, H))
A_STATE = "expected an array (..., F), or a NamedTuple of such, got "
WIDTHS = "expected a width of at least 1, or a NamedTuple of widths, got "
SHAPES = "expected shape (I, O) or (N, I / N, O / N), got "
ROWS = "expected rows float64[4], which update runs on, got "
PAIR = "expected rows Pair(h=float64[4], c=float64[4]), which update runs on, got "
WRONG_ARGUMENTS: dict[str, dict[str, Any]] = {
    "update: expected a function, got int": {"update": 5},
    f"{PARTS}Pair(h=float64[4], c=int64[4])": {
        "update": lambda z, s, w, _: Pair(s.h, (s.c > 0).astype(int)),
        "state": Pair(S, S),
    },
    f"{PARTS}Pair(h=float64[4], c=NoneType)": {
        "update": lambda z, s, w, _: Pair(s.h, None),
        "state": Pair(S, S),
    },
    f"state: {A_STATE}dict": {"state": {"h": S, "c": S}},
    f"state: {A_STATE}tuple": {"state": (S, S)},
    f"state: {A_STATE}list": {"state": [S]},
    f"state.c: {A_STATE}()": {"state": Pair(S, np.ones(()))},
    f"state.c: {A_STATE}NoneType": {"state": Pair(S, None)},
    "state: expected a first field that is one width, got Pair": {
        "state": Pair(Pair(S, S), S)
    },
    "state: expected dtype float64, got int64": {"state": S.astype(int)},
    "state.c: expected dtype float64, got int64": {"state": Pair(S, S.astype(int))},
    "state.c: expected shape (2, 4), got (3, 4)": {"state": Pair(S, np.ones((3, 4)))},
    "state: expected shape (2, 5), got (2, 4)": {"zeros": 5},
    "zeros: expected widths, without a state or a start, got None": {"state": None},
    f"zeros: {WIDTHS}{{'h': 4}}": {"state": None, "zeros": {"h": 4}},
    f"zeros: {WIDTHS}(4, 4)": {"state": None, "zeros": (4, 4)},
    f"zeros: {WIDTHS}0": {"state": None, "zeros": 0},
    f"zeros: {WIDTHS}2.5": {"state": None, "zeros": 2.5},
    f"zeros.c: {WIDTHS}True": {"state": None, "zeros": Pair(4, True)},
    "start: expected shape (2, 4), got (3, 4)": {"start": np.ones((3, 4))},
    "start: expected shape (4,), got (3,)": {"start": np.ones(3)},
    "start: expected an array, got tuple": {"start": (S,)},
    f"state: {ROWS}float64[5]": {"state": np.ones((B, 5))},
    f"state: {ROWS}float64[16]": {"state": np.ones((B, 16)), "start": np.ones(H)},
    f"start: {ROWS}float64[5]": {"state": None, "start": np.ones(5)},
    f"zeros: {ROWS}float64[1]": {"state": None, "zeros": 1},
    "start: expected shape (4,), got (5,)": {"start": np.ones(5)},
    f"state: {PAIR}Pair(h=float64[4], c=float64[5])": {
        "update": lambda z, s, w, _: Pair(jnp.tanh(z + w(s.h)), s.c + z),
        "state": Pair(S, np.ones((B, 5))),
    },
    "params: expected CellParams, got tuple": {"params": (1, 2, 3)},
    "params.extra['a']: expected dtype float64, got float32": {
        "extra": {"a": np.ones(4, np.float32)}
    },
    "params.extra: expected an array, got str": {"extra": "a"},
    f"params.w_h['a']: {SHAPES}(4,)": {"w_h": {"a": np.ones(4)}},
    "params.w_h: expected a float dtype, got int64": {"w_h": np.ones((4, 4), int)},
    "params.w_x: expected shape (D, Z), got (4,)": {"w_x": np.ones(4)},
    "params.w_x: expected a float dtype, got int64": {"w_x": np.ones((D, H), int)},
    "params.b: expected a float dtype, got int64": {"b": np.ones(H, int)},
    "params.b: expected a tree like params.w_x, PyTreeDef((*, *)), got "
    "PyTreeDef((*,))": {
        "w_x": (np.ones((D, H)),) * 2,
        "b": (np.ones(H),),
        "x": (np.ones((B, T, D)),) * 2,
    },
    "x: expected at least one array, got ()": {"w_x": None, "b": None, "x": ()},
    "params.b: expected None without w_x, got an array": {"w_x": None},
    "params.b: expected shape (4,), got (2,)": {"b": np.ones(2)},
    "params.b: expected shape (4,), got list": {"b": [1.0]},
    "x: expected an array, got dict": {"x": {"a": S}},
    "x: expected an array, got str": {"x": "a"},
    "x: expected an array, got NoneType": {"x": None},
    "mask: expected dtype bool, got float64": {"mask": np.ones((B, T))},
    "mask: expected shape (2, 5), as x is (..., T, D), got (5,); where time comes "
    "first, use jax.vmap or swapaxes": {"mask": np.ones(T, bool)},
    "reverse: expected True or False, got 1": {"reverse": 1},
}


@pytest.mark.parametrize("message", WRONG_ARGUMENTS)
def test_a_wrong_argument(given, message):
    wrong = WRONG_ARGUMENTS[message]
    weights = {k: v for k, v in wrong.items() if k in jaxseq.CellParams._fields}
    params = given["params"]._replace(**weights)
    others = {k: v for k, v in wrong.items() if k not in weights}
    options = given | {"params": params} | others
    assert message_of(jaxseq.cell, **options) == message


def error_of(call, *args, **options):
    with pytest.raises((AssertionError, TypeError, ValueError)) as error:
        call(*args, **options)
    return error


@pytest.mark.parametrize("kind", [AssertionError, ValueError])
def test_an_error_that_an_update_raises_stays(given, kind):
    def checks(z, h, w, _):
        if h.shape != (4,):
            raise kind("a state of 4, please")
        return jnp.tanh(z + w(h))

    error = error_of(jaxseq.cell, checks, given["params"], given["x"], zeros=5)
    assert type(error.value) is kind and str(error.value) == "a state of 4, please"
    assert error.traceback[-1].name == "checks"
    assert f"zeros: {ROWS}float64[5]" in error.value.__notes__


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda z, h, w, _: jnp.tanh(z + h), "add got incompatible shapes"),
        (lambda z, h, w, _: jnp.tanh(z), "update: expected a state float64[4], got "),
        (lambda z, h, w, _: jnp.tanh(z + w(h)), "update: expected a state float64[4]"),
    ],
)
def test_widths_that_a_matrix_does_not_have_are_not_named(given, update, message):
    """These forget to split z_x, and would run on a state as wide as it is."""
    params, _, _ = problem(Z=8, w_h=(4, 8))
    error = error_of(jaxseq.cell, update, params, given["x"], zeros=4)
    assert str(error.value).startswith(message)
    assert not any("zeros" in note for note in getattr(error.value, "__notes__", ()))


def test_how_often_a_wrong_update_is_tried(given, monkeypatch):
    extra = [np.ones(n) for n in range(10, 40)]
    params = given["params"]._replace(extra=extra)
    state, calls = Pair(S, np.ones((B, 5))), []

    def update(z, s, w, _):
        calls.append(s)
        return Pair(jnp.tanh(z + w(s.h)), s.c[:2])

    for seconds, most in ((600, 17), (0, 1)):
        calls.clear()
        monkeypatch.setattr(widths, "MOST_SECONDS", seconds)
        assert message_of(jaxseq.cell, update, params, given["x"], state).startswith(
            "update: expected a state Pair(h=float64[4], c=float64[5]), got "
        )
        assert len(calls) == most


def test_parts_of_one_width_are_tried_together(given):
    update = lambda z, s, w, _: Pair(jnp.tanh(z + w(s.h)), s.c + z)
    message = f"zeros: {PAIR}Pair(h=float64[5], c=float64[5])"
    run = partial(jaxseq.cell, update, given["params"], given["x"])
    assert message_of(run, zeros=Pair(5, 5)) == message


def test_an_activation_that_is_no_function(given):
    params = jaxseq.RNNParams(*given["params"][:3])
    message = "activation: expected a function, got 5"
    assert message_of(jaxseq.rnn, params, given["x"], activation=5) == message
    step = partial(jaxseq.rnn_step, params, given["state"], given["x"][:, 0])
    assert message_of(step, activation=5) == message


OPERATIONS: list[Callable[..., Any]] = [
    lambda row: row() + row(),
    lambda row: row() - row(),
    lambda row: row() * row(),
    lambda row: jnp.tanh(row()),
    lambda row: sigmoid(row()),
    lambda row: jnp.where(row() > 0, row(), row()),
    lambda row: jnp.maximum(row(), row()),
    lambda row: stop(row()),
    lambda row: jnp.concatenate([row()[1:], row()[:1]]),
    lambda row: row() / (1 + jnp.linalg.norm(row())),
    lambda row: 0.5 * row() + row().sum(),
]


def random_update(seed, closed):
    """An update drawn from a grammar; the same one whenever it is called.

    Each of two parts of the state is an expression of rows: z_x, the parts, extras,
    what is closed over, and products, each of an expression of its own.
    """

    def update(z_x, state, w_h, extra):
        rng = np.random.default_rng(seed)
        matrices, rows = list(w_h), [*state, *extra, *closed]
        if rng.random() < 0.6:  # z_x in one sum with a product, and nowhere else
            rows.append(z_x + matrices.pop(0)(jnp.sin(rows[rng.integers(len(rows))])))
        else:
            rows += [z_x, z_x]

        def row(depth):
            if depth == 0:
                return rows[rng.integers(len(rows))]
            if matrices and rng.random() < 0.3:
                a = matrices.pop(0)(row(depth - 1))
                rows.append(a)  # that others may read it too
                return a
            return OPERATIONS[rng.integers(len(OPERATIONS))](partial(row, depth - 1))

        return Pair(*(jnp.sin(row(3)) for _ in state))

    return update


def by_hand(update, params, x, state):
    """What `cell` has to give, of one sequence: plain products in a Python loop."""
    ys = []
    for x_t in x:
        w_h = [partial(lambda w, a: a @ w, w) for w in params.w_h]
        state = update(x_t @ params.w_x + params.b, state, w_h, params.extra)
        ys.append(state.h)
    return state, jnp.stack(ys)


@pytest.mark.every(5)
@pytest.mark.parametrize("seed", range(int(os.environ.get("JAXSEQ_TEST_UPDATES", 32))))
def test_a_random_update(seed):
    """Held to plain products in a Python loop that autodiff goes through."""
    sizes = {"w_h": [(2, 2)] * 4, "Z": 2, "state": Pair(2, 2), "extra": [(2,)]}
    params, x, state = problem(**sizes, seed=seed)
    args = params, x[0, :3], jax.tree.map(lambda s: s[0], state)
    s = np.random.default_rng(seed).standard_normal(2)
    path = PATHS["remat" if seed % 8 == 7 else "default"]

    def run(s, *args):
        return jaxseq.cell(random_update(seed, [s]), *args, **path)

    def plain(s, *args):
        return by_hand(random_update(seed, [s]), *args)

    args = jax.tree.map(jnp.asarray, (s, *args))
    close(jax.jit(partial(with_gradients, run))(args), with_gradients(plain, args))


def alive(kind):
    gc.collect()
    return sum(isinstance(a, kind) for a in gc.get_objects())


def test_fresh_updates_leave_nothing_behind(few_objects):
    """Of a thousand that are gone nothing is kept, by the library or by JAX."""
    params, x, state = problem()
    before, gone = alive(Step), []

    def trace(n, run, x):
        for k in range(n):
            update = lambda z_x, h, w_h, _, k=k: jnp.tanh(z_x + w_h(h)) * k
            jax.eval_shape(partial(run, update, params), x, state)
            gone.append(weakref.ref(update))

    step = lambda update, params, x, state: jaxseq.cell_step(update, params, state, x)
    trace(50, jaxseq.cell, x)
    trace(450, step, x[:, 0])
    objects = alive(object)
    trace(50, jaxseq.cell, x)
    trace(450, step, x[:, 0])
    assert alive(Step) == before and not any(ref() for ref in gone)
    # the 500 of `gone` themselves
    assert alive(object) < objects + 500 + 50


@pytest.mark.parametrize("path", PATHS)
def test_fresh_updates_have_their_own_results(path, few_objects):
    """And leave nothing behind, run and differentiated one after the other."""
    params, x, state = jax.tree.map(jnp.asarray, problem())
    before, gone = alive(Step), []
    for k in range(4):
        update = lambda z_x, h, w_h, _, k=k: h + k

        def loss(x, update=update):
            end, y = jaxseq.cell(update, params, x, state, **PATHS[path])
            return (y**2).sum() + x.sum(), end

        _, end = jax.grad(loss, has_aux=True)(x)
        assert_close(end, state + k * T)
        gone.append(weakref.ref(update))
    del update, loss
    assert alive(Step) == before and not any(ref() for ref in gone)


@pytest.mark.parametrize("path", ["default", "remat"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits(dtype, path):
    """An update sees float32; a product reads its left side rounded."""
    params, x, _ = problem(w_h={"a": (H, H), "b": (H, H)}, extra=(H,))
    params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x))
    start = jaxseq.cell_zeros(H, B, dtype=dtype)
    seen = []

    def widened(z_x, h, w_h, extra):
        a = w_h["a"](z_x)
        seen.extend([z_x.dtype, h.dtype, a.dtype, extra.dtype])
        return jnp.tanh(a + w_h["b"](z_x * h) + extra)

    def loss(params, x, start, path):
        end, y = jaxseq.cell(widened, params, x, start, **PATHS[path])
        return jnp.sin(y.astype(jnp.float32)).sum() + end.sum(), (end, y)

    grad = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
    got, (end, y) = grad(params, x, start, path)
    assert set(map(str, seen)) == {"float32"}
    assert end.dtype == start.dtype == jnp.float32 and y.dtype == dtype
    want = grad(params, x, start, "scan")
    pairs = zip(*map(jax.tree.leaves, ((got, (end, y)), want)), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype
        a, b = a.astype(float), b.astype(float)
        most = 2 * float(jnp.finfo(dtype).eps) * np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=most)


def test_no_buffer_twice_in_what_is_returned():
    """So that all of it can be donated."""
    update, sizes = SIZES["parts"]
    params, x, _ = jax.tree.map(jnp.asarray, problem(**sizes))
    zeros = jaxseq.cell_zeros(Pair(4, 2), B, dtype=float)
    step = jaxseq.cell_step(update, params, zeros, x[:, 0])
    run = jaxseq.cell(update, params, x, zeros=Pair(4, 2))
    begun = jaxseq.cell(update, params, x[:, :0], zeros)[0]
    for tree in zeros, step, run, begun:
        buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(tree)]
        assert len(set(buffers)) == len(buffers)
    state, _ = jax.jit(partial(jaxseq.cell_step, update), donate_argnums=1)(
        params, zeros, x[:, 0]
    )
    assert all(a.is_deleted() for a in zeros)
    assert_close(state, step[0])


# updates whose derivative holds an array, or that have none in reverse mode
A = np.linspace(0.5, 1.5, H)


def spiking(held):
    """A step function with a surrogate for its derivative (Neftci et al., 2019)."""
    spike = jax.custom_jvp(lambda a: (a > 0).astype(a.dtype))
    spike.defjvp(lambda a, d: (spike(*a), d[0] * held / (1 + jnp.abs(a[0])) ** 2))
    return lambda z, h, w, _: spike(z + w(h)) + 0.5 * h


def with_backward(z, h, w, _):
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(lambda a: (jnp.tanh(a), a), lambda a, d: (d * A * jnp.cos(a),))
    return f(z + w(h))


C = jnp.asarray(np.random.default_rng(5).standard_normal((H, H)))
HELD = {
    "a vector": spiking(jnp.asarray(A)),
    "of NumPy": spiking(A),
    "a scalar": spiking(jnp.asarray(0.7)),
    "in a backward pass": with_backward,
    "inside jit": lambda z, h, w, _: jnp.tanh(z + w(jax.jit(lambda a: C @ a)(h))),
}


@pytest.mark.every(2)
@pytest.mark.parametrize("name", HELD)
def test_derivatives_that_hold_an_array(name):
    params, x, state = problem()
    masks = {"lengths": LENGTHS}

    @partial(jax.jit, static_argnums=0)
    def run(path, *args):
        run = partial(jaxseq.cell, HELD[name], **masks, **PATHS[path])
        return with_gradients(run, args)

    want = run("scan", params, x, state)
    for path in PATHS:
        close(run(path, params, x, state), want)


def test_complex_numbers():
    """A diagonal recurrence (Orvieto et al., 2023): weights, inputs, closed arrays."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.uniform(0.1, 0.5, (*shape, 2)) @ [1, 1j]
    params, x, state = problem(w_h=None, state=Pair(H, H))
    params = params._replace(extra={"rate": draw(H)})
    held, turned = draw(H), draw(B, T, H)

    def run(path, params, x, state, held, turned):
        def update(z_x, s, _, extra):
            z, u = z_x
            a = extra["rate"] * lax.complex(s.h, s.c) + held * z.astype(complex) + u
            return Pair(a.real, a.imag)

        params = params._replace(w_x=(params.w_x, None), b=(params.b, None))
        run = partial(jaxseq.cell, update, lengths=LENGTHS, **PATHS[path])
        return run(params, (x, turned), state)

    everything = jax.jit(
        lambda path, *args: with_gradients(partial(run, path), args), static_argnums=0
    )
    args = params, x, state, held, turned
    want = everything("scan", *args)
    for path in ("default", "remat"):
        close(everything(path, *args), want)
    gradients = want[1]
    assert np.abs(gradients[0].extra["rate"]).min() > 1e-3
    assert np.abs(gradients[3]).min() > 1e-3


def halved(z, h, w, _):
    return lax.while_loop(lambda a: jnp.abs(a).max() > 1, lambda a: a / 2, z + w(h))


def test_an_update_without_reverse_mode_has_all_else():
    params, x, state = problem()
    run = lambda x, **path: jaxseq.cell(halved, params, x, state, **path)
    tangents = lambda **path: jax.jvp(partial(run, **path), (x,), (np.ones_like(x),))
    want = tangents(implementation="scan")
    for path in PATHS["default"], PATHS["remat"]:
        close(run(x, **path), want[0])
        close(tangents(**path), want)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda x: weighted_sum(run(x)))(x)


REFUSED = {
    "an update with an effect": lambda z, h, w, _: (
        jax.debug.callback(lambda: None),
        jnp.tanh(z + w(h)),
    )[1],
    "an update that reads complex numbers": lambda z, h, w, _: (
        jnp.tanh(z + w(h)) * jnp.asarray(A + 1j).real
    ),
    "an update without a derivative in reverse mode": halved,
}


def equations(jaxpr):
    for e in jaxpr.eqns:
        yield e
        for inner in jaxprs_in_params(e.params):
            yield from equations(inner)


def test_effects_are_those_of_gradients_too(given):
    """So that `jax.effects_barrier` waits for them, with `remat` as well."""
    seen = []

    def update(z, h, w, _):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.tanh(z + w(h))

    def loss(x):
        params, state = given["params"], given["state"]
        return jaxseq.cell(update, params, x, state, remat=2)[1].sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss))(given["x"]).jaxpr
    back = [e for e in equations(jaxpr) if e.primitive.name == "jaxseq_linear"]
    assert back and all(e.effects for e in back)
    jax.grad(loss)(given["x"])
    jax.effects_barrier()
    assert len(seen) >= T


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("implementation", ["loop", "pallas"])
def test_what_insists_is_refused(given, why, implementation):
    given = given | {"update": REFUSED[why]}
    message = message_of(jaxseq.cell, *given.values(), implementation=implementation)
    assert message == f"implementation: expected None or 'scan' here, got {why}"


def test_a_method_compiles_once(given, caplog, few_objects):
    class Model:
        def update(self, z_x, h, w_h, _):
            return jnp.tanh(z_x + w_h(h))

    model = Model()
    call = lambda model: jaxseq.cell(**given | {"update": model.update})
    want = call(model)
    with jax.log_compiles():
        assert_close(call(model), want)
    assert "Finished XLA compilation" not in caplog.text
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_an_error_of_the_update_says_what_it_was_given(given):
    given = given | {"update": lambda z, h, w, _: lax.add(z[:2], w(h))}
    with pytest.raises(TypeError, match="incompatible shapes") as error:
        jaxseq.cell(*given.values())
    note = "the update was given z_x float64[4], a state float64[4]"
    assert note in error.value.__notes__
