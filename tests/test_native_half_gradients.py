"""Gradients of matrices and inputs in bfloat16 and float16, against float64."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._base.dtypes import state_dtype
from jaxseq._kernels.cpu import build
from jaxseq._kernels.cpu import gradients as native
from tests.native.problems import built_in, normal
from tests.test_native_half import TYPES, eps, every_type

pytestmark = pytest.mark.usefixtures("native_library")

HOW = {"turned": 0, "before": 0, "reverse": 0, "members": -1, "own": ""}


def kernel(d, sides, matrices, kernels, dtype, **how):
    """The custom call; what it gives for a left side has a dtype of its own."""
    T, B, N = d.shape
    flat = [a for side in sides for a in (side if isinstance(side, tuple) else (side,))]
    widths = [(s[0] if isinstance(s, tuple) else s).shape[-1] for s in sides]
    shapes = [((F, N), jnp.float32) for F in widths]
    shapes += [((N,), jnp.float32), *(((T, B, len(w)), dtype) for w in matrices)]
    out = [jax.ShapeDtypeStruct(*each) for each in shapes]
    f = jax.ffi.ffi_call(build.GRADIENTS, out)
    how = {**HOW, "lefts": len(sides), "vectors": kernels, **how}
    return [np.asarray(a, np.float64) for a in f(d, *flat, *matrices, **how)]


# steps, rows, columns of d, of left sides
SIZES = [
    (5, 4, 37, (3, 8, 17)),
    (1, 1, 1, (1, 1)),
    (3, 71, 130, (9,)),
    (197, 4, 48, (24, 16)),
    (7, 9, 33, (530, 1)),
    (2, 40, 2100, (50,)),  # more columns than are multiplied at a time
]
ALL = [0, 1, 2, 3]
names = ["plain", "avx2", "avx512", "pairs"]


@pytest.mark.every(5)
@pytest.mark.parametrize("kernels", ALL, ids=names)
@pytest.mark.parametrize("kind", ["exact", "float32", "half"])
@every_type
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel(size, dtype, kind, kernels):
    """`d` is of 16 bits, or of float32, with numbers of 16 bits or with others."""
    T, B, N, widths = size
    d = normal(1, T, B, N, dtype=jnp.float32 if kind == "float32" else dtype)
    d = d.astype(jnp.float32) if kind == "exact" else d
    lefts = [normal(2 + i, T, B, F, dtype=dtype) for i, F in enumerate(widths)]
    ws = [normal(9 + i, F, N, dtype=dtype) for i, F in enumerate(widths)]
    found = kernel(d, lefts, ws, kernels, dtype)
    wide = lambda a: np.asarray(a, np.float64)
    d, lefts, ws = wide(d), list(map(wide, lefts)), list(map(wide, ws))
    sums = lambda d, lefts: [np.einsum("tbi,tbj->ij", a, d) for a in lefts]
    n = len(ws)
    # for matrices d itself is rounded at most once, and that to bfloat16
    once = eps(jnp.bfloat16) / 2 if kind == "float32" and dtype == jnp.bfloat16 else 0.0
    parts = sums(abs(d), map(abs, lefts)), [abs(d) @ abs(w.T) for w in ws]
    for a, b, size in zip(found[:n], sums(d, lefts), parts[0], strict=True):
        assert (abs(a - b) <= (once + 1e-6) * size).all()
    np.testing.assert_allclose(found[n], d.sum((0, 1)), rtol=1e-5, atol=1e-4)
    for a, w, size in zip(found[n + 1 :], ws, parts[1], strict=True):
        b = d @ w.T
        assert (abs(a - b) <= 1e-6 * size + eps(dtype) / 2 * abs(b)).all()
        unlike = np.float64(jnp.asarray(b, dtype)) != a
        assert unlike.mean() < 0.01  # the nearest number, but where two are as near


@pytest.mark.parametrize("kernels", ALL, ids=names)
@pytest.mark.parametrize("reverse", [0, 1])
@every_type
@pytest.mark.parametrize("size", [(5, 4, 37, 9), (1, 3, 8, 8), (60, 7, 30, 11)])
def test_arrays_as_they_lie(size, dtype, reverse, kernels):
    """By row of the batch, and what an array was before each step."""
    T, B, N, F = size
    d, x, y = (normal(i, *s, dtype=dtype) for i, s in enumerate(
        [(T, B, N), (B, T, F), (B, T, F)]
    ))  # fmt: skip
    first = normal(5, B, F, dtype=dtype)
    how = {"turned": 0b11, "before": 0b10, "reverse": reverse}
    found = kernel(d, [x, (y, first)], [], kernels, dtype, **how)
    d, x, y, first = (np.asarray(a, np.float64) for a in (d, x, y, first))
    x, y = np.swapaxes(x, 0, 1), np.swapaxes(y, 0, 1)
    old = [y[1:], first[None]] if reverse else [first[None], y[:-1]]
    sums = [np.einsum("tbi,tbj->ij", a, d) for a in (x, np.concatenate(old))]
    for a, b in zip(found, [*sums, d.sum((0, 1))], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_types_that_do_not_fit():
    d, x = normal(1, 3, 40, 8, dtype=jnp.float32), normal(2, 3, 40, 5)
    for dtype, other in ((jnp.bfloat16, jnp.float16), (jnp.float64, jnp.bfloat16)):
        w = normal(3, 5, 8, dtype=other)
        with pytest.raises(jax.errors.JaxRuntimeError, match="have other types"):
            kernel(d, [x.astype(dtype)], [w], 3, other)
    with pytest.raises(jax.errors.JaxRuntimeError, match="sums have 16 bits"):
        out = [jax.ShapeDtypeStruct((5, 8), jnp.bfloat16)]
        how = {**HOW, "lefts": 1, "vectors": 3}
        jax.ffi.ffi_call(build.GRADIENTS, out)(d, x.astype(jnp.bfloat16), **how)


def gradients(f, params, x, name):
    def run(params, x):
        y, pull = jax.vjp(lambda *a: f(*a, implementation=name)[1], params, x)
        return pull(jnp.cos(y.astype(jnp.float32)).astype(y.dtype))

    found = jax.tree.leaves(jax.jit(run)(params, x))
    return [np.asarray(a, np.float64) for a in found]


def errors(found, want):
    """The error of each gradient, over all its elements, of its size."""
    norm: Any = np.linalg.norm
    return [norm(a - b) / norm(b) for a, b in zip(found, want, strict=True)]


@pytest.mark.every(3)
@every_type
@pytest.mark.parametrize("op", ["lstm", "rnn", "gru"])
@pytest.mark.parametrize("shape", [(8, 40, 24, 48), (3, 200, 16, 33), (40, 5, 9, 20)])
def test_errors_are_those_of_the_scan(op, shape, dtype):
    """The scan rounds what matrices read, y and each gradient once, nothing else."""
    B, T, D, H = shape
    f, params = built_in(op, D, H, dtype)
    x = normal(1, B, T, D, dtype=dtype)
    wide: Any = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x))
    want = gradients(f, wide[0], wide[1], "scan")
    found = (gradients(f, params, x, name) for name in ("native", "scan"))
    own, scan = (errors(each, want) for each in found)
    for a, b, like in zip(own, scan, want, strict=True):
        # of a matrix, the gradient of z is rounded too: two errors of one size at most
        most = 1.45 if like.ndim == 2 and dtype == jnp.bfloat16 else 1.03
        assert a <= most * b + eps(dtype) / 100


@every_type
def test_no_array_is_made_wide(dtype):
    """x, y and their gradients stay in 16 bits."""
    B, T, D, H = 11, 13, 24, 40
    for op in ("lstm", "gru"):
        f, params = built_in(op, D, H, dtype)

        def gradient(params, x, dy, f=f):
            y, pull = jax.vjp(lambda *a: f(*a, implementation="native")[1], params, x)
            return y, pull(dy)

        args = params, *(normal(1, B, T, n, dtype=dtype) for n in (D, H))
        text: Any = jax.jit(gradient).lower(*args).compile().as_text()
        wide = [f"f32[{B},{T},{n}]" for n in (D, H)] + [f"f32[{T},{B},{D}]"]
        assert not [shape for shape in wide if shape in text]
        calls = [line for line in text.splitlines() if build.GRADIENTS in line]
        # a state of float32 is saved, but is no left side
        assert calls and not [line for line in calls if f"f32[{T},{B},{H}]" in line]


@every_type
def test_bodies_whose_products_have_16_bits(dtype, monkeypatch):
    """Then the gradient of a product has, too."""
    real, found = native.gradients, []
    spy = lambda spec, factors, terms, d: (
        found.append(d.dtype) or real(spec, factors, terms, d)
    )
    monkeypatch.setattr(native, "gradients", spy)
    w, u = (normal(n, k, 9, dtype=dtype) / 3 for n, k in ((1, 3), (2, 9)))
    h, xs = normal(3, 20, 9, dtype=dtype), normal(4, 6, 20, 3, dtype=dtype)

    def run(scan, w, u, h, xs):
        body = lambda h, x: (jnp.tanh(x @ w + h @ u),) * 2
        _, pull = jax.vjp(partial(scan, body), h, xs)
        grads = jax.grad(lambda w, u: run_sum(scan, w, u, h, xs), (0, 1))(w, u)
        return pull((h, jnp.ones((6, 20, 9), h.dtype))), grads

    def run_sum(scan, w, u, h, xs):
        body = lambda h, x: (jnp.tanh(x @ w + h @ u),) * 2
        return jnp.sum(scan(body, h, xs)[1].astype(state_dtype(h.dtype)))

    args = w, u, h, xs
    own, want = jax.jit(partial(run, jaxseq.scan))(*args), run(jax.lax.scan, *args)
    wide = run(jax.lax.scan, *(a.astype(jnp.float64) for a in args))
    for a, b, exact in zip(*map(jax.tree.leaves, (own, want, wide)), strict=True):
        assert a.dtype == b.dtype
        off, of_scan = (
            np.sqrt(np.mean(np.square(np.float64(c) - exact))) for c in (a, b)
        )
        assert off <= 1.5 * of_scan
    assert found and set(found) <= set(map(jnp.dtype, TYPES))
