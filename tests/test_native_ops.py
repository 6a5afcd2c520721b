"""What the native kernels for CPUs compute of rows, against NumPy and SciPy."""

import operator
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax

import jaxseq
from jaxseq._kernels.cpu import build
from jaxseq._kernels.cpu.elements import OPS
from jaxseq._kernels.cpu.folds import FOLDS

pytestmark = pytest.mark.usefixtures("native_library")


def evaluated(functions, x, *extra, implementation="native"):
    """Each of these of the rows of x and vectors, by one step of a cell."""
    Parts = namedtuple("Parts", functions)
    update = lambda z_x, state, w_h, extra: Parts(
        *(f(z_x, *extra) for f in functions.values())
    )
    params = jaxseq.CellParams(None, None, None, extra)
    zeros = Parts(*[x.shape[-1]] * len(functions))
    run = jax.jit(
        lambda params, x: jaxseq.cell(
            update, params, x[:, None], zeros=zeros, implementation=implementation
        )
    )
    return run(params, x)[0]._asdict()


round_up = lambda a: np.sign(a) * np.floor(np.abs(a) + a.dtype.type(0.5))
logistic = lambda a: 1 / (1 + np.exp(-a))


def erf(a):
    """In extended precision, by a series of positive terms (DLMF 7.6.2)."""
    x = np.minimum(np.abs(a), 8)
    term = total = x
    for n in range(1, 200):
        term = term * 2 * x * x / (2 * n + 1)
        total = total + term
    return np.copysign(total * np.exp(-x * x) / np.sqrt(np.arctan(a.dtype.type(1))), a)


def erfc(a):
    """Far out by a continued fraction (DLMF 7.9.1)."""
    x = tail = np.clip(a, 2, 30)
    for n in range(100, 0, -1):
        tail = x + n / (2 * tail)
    far = np.exp(-x * x) / tail / np.sqrt(4 * np.arctan(a.dtype.type(1)))
    return np.where(a > 2, far, 1 - erf(a))


# a function, and the same of NumPy's extended precision
FUNCTIONS = {
    "exp": (jnp.exp, np.exp),
    "expm1": (jnp.expm1, np.expm1),
    "exp2": (jnp.exp2, np.exp2),
    "log": (jnp.log, np.log),
    "log1p": (jnp.log1p, np.log1p),
    "tanh": (jnp.tanh, np.tanh),
    "logistic": (jax.nn.sigmoid, logistic),
    "softplus": (jax.nn.softplus, lambda a: np.logaddexp(a, 0)),
    "sqrt": (jnp.sqrt, np.sqrt),
    "rsqrt": (lax.rsqrt, lambda a: 1 / np.sqrt(a)),
    "cbrt": (jnp.cbrt, np.cbrt),
    "square": (jnp.square, np.square),
    "power": (lambda a: a**-3, lambda a: a**-3),
    "sin": (jnp.sin, np.sin),
    "cos": (jnp.cos, np.cos),
    "tan": (jnp.tan, np.tan),
    "asin": (lax.asin, np.arcsin),
    "acos": (lax.acos, np.arccos),
    "atan": (lax.atan, np.arctan),
    "sinh": (lax.sinh, np.sinh),
    "cosh": (lax.cosh, np.cosh),
    "asinh": (lax.asinh, np.arcsinh),
    "acosh": (lax.acosh, np.arccosh),
    "atanh": (lax.atanh, np.arctanh),
    "erf": (lax.erf, erf),
    "erfc": (lax.erfc, erfc),
    "abs": (jnp.abs, np.abs),
    "sign": (jnp.sign, np.sign),
    "floor": (jnp.floor, np.floor),
    "ceil": (jnp.ceil, np.ceil),
    "round": (lax.round, round_up),
    "round_even": (jnp.round, np.round),
    "relu": (jax.nn.relu, lambda a: np.maximum(a, 0)),
    "clip": (lambda a: jnp.clip(a, -1, 1), lambda a: np.clip(a, -1, 1)),
    "is_finite": (lambda a: jnp.isfinite(a).astype(a.dtype), np.isfinite),
    "is_nan": (lambda a: jnp.isnan(a).astype(a.dtype), np.isnan),
    "where": (
        lambda a: jnp.where((a > 0) & ~(a < 0.1), a, -a),
        lambda a: np.where((a > 0) & ~(a < 0.1), a, -a),
    ),
}
PAIRS = {
    "div": (operator.truediv, np.divide),
    "max": (jnp.maximum, np.maximum),
    "min": (jnp.minimum, np.minimum),
    "rem": (lax.rem, np.fmod),
    "atan2": (lax.atan2, np.arctan2),
    "pow": (jnp.power, np.power),
    "ge": (lambda a, b: (a >= b).astype(a.dtype), np.greater_equal),
    "ne": (lambda a, b: (a != b).astype(a.dtype), np.not_equal),
}
# ulps; of others 2.5
MOST = {"floor": 0, "ceil": 0, "round": 0, "round_even": 0, "rem": 0}
MOST |= {"softplus": 3, "asin": 3, "acos": 3, "cbrt": 4, "erfc": 7}
EDGES = [0.0, -0.0, 1e-30, -1e-30, 1e-5, -0.3, 0.5, 1.0, -1.0, 1.5, 2.0, 2.5, -3.5]
EDGES += [88.0, -87.0, 300.0, 1e-42, np.nan, np.inf, -np.inf]


def assert_ulps(name, found, exact, dtype):
    with np.errstate(all="ignore"):
        rounded, info = np.asarray(exact).astype(dtype), np.finfo(dtype)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded), name)
        inside = np.isfinite(rounded) & (np.abs(rounded) > info.tiny)
        error = np.abs(found - exact) / np.spacing(np.abs(rounded))
    worst = error[inside].max(initial=0)
    assert worst <= MOST.get(name, 2.5), (name, worst)
    # denormal numbers are zero here, and next to the largest a result may be infinite
    rest, some = found[~inside], rounded[~inside]
    np.testing.assert_allclose(rest, some, 0, info.tiny, err_msg=name)


def flushed(x):
    """Without denormal numbers, as XLA has it."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(0, x), x)


@pytest.mark.every(5)
@pytest.mark.parametrize("functions", [FUNCTIONS, PAIRS], ids=["of one", "of two"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_functions(dtype, functions, vectors):
    rng = np.random.default_rng(0)
    edges = np.meshgrid(*[EDGES] * (1 if functions is FUNCTIONS else 2))
    spread = lambda: [rng.standard_normal(500) * s for s in (0.01, 1, 8, 40)]
    args = [np.concatenate([a.ravel(), *spread()]).astype(dtype) for a in edges]
    x, *others = map(jnp.asarray, args)
    found = evaluated({k: f for k, (f, _) in functions.items()}, x[None], *others)
    wide = [flushed(a).astype(np.longdouble) for a in args]
    for name, (_, f) in functions.items():
        with np.errstate(all="ignore"):
            exact = np.asarray(f(*wide), np.longdouble)
        assert_ulps(name, np.asarray(found[name])[0], exact, dtype)


def test_zeros_keep_their_signs(vectors):
    names = "sin tan asin atan sinh asinh atanh tanh erf cbrt sqrt floor ceil round"
    names += " round_even expm1 log1p"
    functions = {name: FUNCTIONS[name][0] for name in names.split()}
    functions |= {"neg": lambda a: -a, "add": lambda a: a + -0.0}
    functions |= {"mul": lambda a: a * -1.0, "sub": lambda a: a - 0.0}
    functions |= {"less": lambda a: a - -0.0}
    x = np.array([[0.0, -0.0] * 9])
    negative = np.signbit(x)
    others = {"neg": ~negative, "mul": ~negative, "less": np.zeros_like(negative)}
    for name, found in evaluated(functions, jnp.asarray(x)).items():
        np.testing.assert_array_equal(
            np.signbit(found), others.get(name, negative), name
        )


# over a row, with two functions that read it again
OVER_ROWS = {
    "sum": (lambda a: a + a.sum(), lambda a: a + a.sum(-1, keepdims=True)),
    "mean": (lambda a: a - a.mean(), lambda a: a - a.mean(-1, keepdims=True)),
    "max": (lambda a: a * a.max(), lambda a: a * a.max(-1, keepdims=True)),
    "min": (lambda a: a * a.min(), lambda a: a * a.min(-1, keepdims=True)),
    "prod": (lambda a: a + a.prod(), lambda a: a + a.prod(-1, keepdims=True)),
    "any": (
        lambda a: jnp.where((a > 2).any(), a, -a),
        lambda a: np.where((a > 2).any(-1, keepdims=True), a, -a),
    ),
    "all": (
        lambda a: jnp.where((a < 2).all(), a, -a),
        lambda a: np.where((a < 2).all(-1, keepdims=True), a, -a),
    ),
    "softmax": (jax.nn.softmax, lambda a: scipy.special.softmax(a, -1)),
    "log_softmax": (jax.nn.log_softmax, lambda a: scipy.special.log_softmax(a, -1)),
    "norm": (
        lambda a: (a - a.mean()) * lax.rsqrt(a.var() + 1e-5),
        lambda a: (
            (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        ),
    ),
    "part": (
        lambda a: jnp.concatenate([a[: len(a) // 2], a[len(a) // 2 :] + a[1:].sum()]),
        lambda a: np.concatenate(
            [
                a[:, : a.shape[1] // 2],
                a[:, a.shape[1] // 2 :] + a[:, 1:].sum(-1, keepdims=True),
            ],
            -1,
        ),
    ),
}


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 16), (7, 33)])
def test_over_a_row(shape, vectors):
    x = np.random.default_rng(0).standard_normal(shape)
    found = evaluated({k: f for k, (f, _) in OVER_ROWS.items()}, jnp.asarray(x))
    for name, (_, f) in OVER_ROWS.items():
        np.testing.assert_allclose(found[name], f(x), 1e-12, 1e-12, err_msg=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_a_row(bad):
    x = np.random.default_rng(0).standard_normal((3, 9))
    x[1, 4] = bad
    names = "sum max min prod any all softmax".split()
    found = evaluated({k: OVER_ROWS[k][0] for k in names}, jnp.asarray(x))
    for name in names:
        want = jax.vmap(OVER_ROWS[name][0])(jnp.asarray(x))
        np.testing.assert_allclose(found[name], want, 1e-12, 1e-12, err_msg=name)


def test_what_cuts_a_long_computation_takes_no_time():
    """Each part of it is taken once, not once for every way to it."""

    def update(z_x, state, w_h, extra):
        for _ in range(60):
            z_x = jnp.sin(z_x) * (z_x + 0.5)
        return jnp.concatenate([z_x[1:], z_x[:1]])

    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)))
    params = jaxseq.CellParams(None, None, None)
    run = lambda name: jaxseq.cell(update, params, x, zeros=4, implementation=name)
    np.testing.assert_allclose(run("native")[1], run("scan")[1], 1e-10, 1e-10)


def names_of(file, start):
    text = (build.HERE / "src" / file).read_text().splitlines()
    return [a[len(start) :].split(",")[0] for a in text if a.startswith(start)]


def test_instructions_have_the_same_names():
    assert names_of("ops.h", "OP(") == OPS
    text = (build.HERE / "src" / "fold.h").read_text()
    folds = text.partition("enum { ")[2].partition(" }")[0].split(", ")
    assert len(FOLDS) == len(folds)
