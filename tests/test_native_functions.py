"""The functions of the native kernels over all exponents, and their special values."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.native import LONG
from tests.test_native_ops import FUNCTIONS, PAIRS, assert_ulps, evaluated, flushed

pytestmark = pytest.mark.usefixtures("native_library")
MANTISSAS = 1000 if LONG else 25  # of each exponent and sign
DTYPES = [jnp.float32, jnp.float64]


def over_exponents(dtype, rng):
    """Numbers of either sign with random bits behind each exponent, in rows."""
    info = np.finfo(dtype)
    every = np.arange(1, 2**info.nexp - 1)
    if info.nexp > 8 and not LONG:
        every = every[::8]
    bits = f"uint{info.bits}"
    rest = rng.integers(0, 2**info.nmant, (len(every), 2, MANTISSAS), bits)
    sign = np.array([[0], [1]], bits) << np.array(info.bits - 1, bits)
    found = (
        rest | sign | every.astype(bits)[:, None, None] << np.array(info.nmant, bits)
    )
    rows = found.view(dtype).reshape(-1, 25)
    near = rng.uniform(-110, 110, (MANTISSAS * 20, 25)).astype(dtype)
    return np.concatenate([rows, near])


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_over_all_exponents(dtype, vectors):
    x = over_exponents(dtype, np.random.default_rng(0))
    wide = x.astype(np.longdouble)
    some = {k: pair for k, pair in FUNCTIONS.items() if k != "power"}  # which overflows
    found = evaluated({k: f for k, (f, _) in some.items()}, jnp.asarray(x))
    for name, (_, f) in some.items():
        with np.errstate(all="ignore"):
            exact = np.asarray(f(wide), np.longdouble)
        assert_ulps(name, np.asarray(found[name]), exact, dtype)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_over_all_exponents(dtype, vectors):
    rng = np.random.default_rng(1)
    x = over_exponents(dtype, rng)
    y = rng.permuted(x, axis=1)
    near = rng.random(x.shape) < 0.5
    y = np.where(near, y, rng.standard_normal(x.shape) * 4).astype(dtype)
    functions = {
        k: lambda a, f=f: f(a[: len(a) // 2], a[len(a) // 2 :])
        for k, (f, _) in PAIRS.items()
    }
    found = evaluated_halves(functions, np.concatenate([x, y], 1))
    for name, (_, f) in PAIRS.items():
        with np.errstate(all="ignore"):
            exact = f(x.astype(np.longdouble), y.astype(np.longdouble))
        assert_ulps(name, found[name], np.asarray(exact, np.longdouble), dtype)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_exact_has_the_bits_of_jax(dtype, vectors):
    x = over_exponents(dtype, np.random.default_rng(2))
    near = np.round(x[-1000:]) / 2  # halves
    end = 2.0 ** np.finfo(dtype).nmant
    ends = np.array([[0.25, 0.5, 0.75, 1, 2]]).T * (end + np.arange(-12, 13))
    x = np.concatenate([x, near, np.concatenate([ends, -ends])]).astype(dtype)
    names = "floor ceil round round_even abs sign clip relu".split()
    functions = {k: FUNCTIONS[k][0] for k in names}
    functions["rem"] = lambda a: lax.rem(a, jnp.full_like(a, 0.3))
    functions["rem_of_whole"] = lambda a: lax.rem(a, jnp.full_like(a, -7))
    native, scan = (
        evaluated(functions, jnp.asarray(x), implementation=name)
        for name in ("native", "scan")
    )
    for name in functions:
        a, b = (flushed(np.asarray(each[name])) for each in (native, scan))
        np.testing.assert_array_equal(a, b, name)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b), name)


def evaluated_halves(functions, rows):
    """Of functions of both halves of a row."""
    twice = {
        k: lambda a, f=f: jnp.concatenate([f(a), f(a)]) for k, f in functions.items()
    }
    found = evaluated(twice, jnp.asarray(rows))
    return {k: np.asarray(a)[:, : rows.shape[1] // 2] for k, a in found.items()}


def kind(a, dtype):
    """Whether it is NaN, infinite, or zero, with its sign, or something else."""
    sign = np.where(np.signbit(a), -1, 1)
    # the smallest are taken as zeros here and there
    ranks = [np.isnan(a), np.isinf(a), np.abs(a) <= np.finfo(dtype).tiny]
    return np.select(ranks, [9, 2 * sign, sign], 0)


def special(dtype):
    info = np.finfo(dtype)
    a = [0, 4 * info.tiny, 1e-3, 0.3, 0.5, 1, 1.5, 2, 2.5, 3, 60, 100, 800, 1e5]
    a += [info.max / 2, info.max, np.inf]
    return np.array([*a, *(-b for b in a), np.nan], dtype)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_as_jax_has_them(dtype, vectors):
    x = special(dtype)[None]
    functions = {k: f for k, (f, _) in FUNCTIONS.items()}
    native, scan = (
        evaluated(functions, jnp.asarray(x), implementation=name)
        for name in ("native", "scan")
    )
    for name in FUNCTIONS:
        a, b = (kind(np.asarray(each[name]), dtype) for each in (native, scan))
        np.testing.assert_array_equal(a, b, name)


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_pairs_as_jax_has_them(dtype, vectors):
    x, y = map(np.ravel, np.meshgrid(special(dtype), special(dtype)))
    functions = {k: f for k, (f, _) in PAIRS.items()}
    functions |= {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "power": lambda a, b: a**3 - b**-2,
        "select": lambda a, b: jnp.where(a < b, a, b),
        "sign": lambda a, b: jnp.sign(a * b),
    }
    args = jnp.asarray(x)[None], jnp.asarray(y)
    native, scan = (
        evaluated(functions, *args, implementation=name) for name in ("native", "scan")
    )
    for name in functions:
        a, b = (kind(np.asarray(each[name]), dtype) for each in (native, scan))
        wrong = np.flatnonzero(a != b)
        assert not wrong.size, (name, x[wrong[:5]], y[wrong[:5]])


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_are_zeros(dtype, vectors):
    """Or next to them, for some of XLA's functions take them as they are."""
    info = np.finfo(dtype)
    x = np.array([[1, 0.5, 0.1, -0.7, -1e-3]], dtype) * info.tiny
    functions = {k: f for k, (f, _) in FUNCTIONS.items()}
    found = evaluated(functions, jnp.asarray(x))
    zeros = evaluated(functions, jnp.asarray(np.copysign(flushed(x), x)))
    for name in functions:
        a, b = np.asarray(found[name]), np.asarray(zeros[name])
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite], name)
        assert np.abs(a[finite] - b[finite]).max(initial=0) <= 4 * info.tiny, name
