"""Random programs by the native kernels, against the plain scan.

Updates, and bodies by `jaxseq.scan` against `lax.scan`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._kernels.cpu import back, call, limits

pytestmark = pytest.mark.usefixtures("native_library")
N = int(os.environ.get("JAXSEQ_TEST_UPDATES", 6))

# what a row is made of, of others; all of it bounded, or growing no faster than they do
ONE = [
    jnp.tanh,
    jax.nn.sigmoid,
    jax.nn.relu,
    jax.nn.softplus,
    jax.nn.gelu,
    partial(jax.nn.gelu, approximate=False),
    jax.nn.silu,
    jax.nn.softmax,
    jax.nn.log_sigmoid,
    jnp.sin,
    jnp.cos,
    jnp.abs,
    jnp.sign,
    jnp.cbrt,
    lax.erf,
    lax.erfc,
    lax.atan,
    lax.asinh,
    lax.stop_gradient,
    lambda a: jnp.exp(-jnp.abs(a)),
    lambda a: jnp.exp2(jnp.minimum(a, 1)),
    lambda a: jnp.expm1(jnp.clip(a, -2, 2)),
    lambda a: jnp.log1p(jnp.square(a)),
    lambda a: jnp.log(jnp.abs(a) + 0.5),
    lambda a: jnp.sqrt(jnp.abs(a) + 0.1),
    lambda a: lax.rsqrt(a * a + 0.5),
    lambda a: jnp.power(jnp.abs(a) + 0.1, 0.7),
    lambda a: a**3 / (1 + a**2),
    lambda a: jnp.floor(4 * a) / 4,
    lambda a: jnp.ceil(4 * a) / 4 + a,
    lambda a: jnp.round(3 * a) / 3,
    lambda a: lax.round(3 * a) / 3,
    lambda a: jnp.where(jnp.isfinite(a), a, 0.0),
    lambda a: a - a.mean(),
    lambda a: a + 0.5 * a.max(),
    lambda a: a * lax.rsqrt((a * a).mean() + 0.1),
    lambda a: (a - a.mean()) / jnp.sqrt(a.var() + 0.1),
    lambda a: jnp.where((a > 1).any(), a, 0.5 * a),
    lambda a: jnp.concatenate([a[1:], a[:1]]),
    lambda a: jnp.pad(a[: len(a) // 2], (0, len(a) - len(a) // 2)),
    lambda a: jnp.full_like(a, 0.3) + a[0],
    lambda a: a.astype(bool).astype(a.dtype),
    lambda a: a[::-1],
    lambda a: jnp.repeat(a, 2)[: len(a)],
    lambda a: jnp.stack([a, jnp.sin(a)]).max(0),
    lambda a: jnp.stack([a, 0.5 * a], 1).sum(1),
    lambda a: a.reshape(-1, 1).mean(1),
]
TWO = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * jnp.tanh(b),
    lambda a, b: a / (1 + jnp.abs(b)),
    jnp.maximum,
    jnp.minimum,
    jnp.logaddexp,
    jnp.arctan2,
    lambda a, b: jnp.where(a > b, a, -b),
    lambda a, b: jnp.where((a > 0) & ~(b < 0.1) | (a > b), a, b),
    lambda a, b: jnp.where((a > 0) == (b > 0), a, b),
    lambda a, b: jax.nn.sigmoid(a) * b + (1 - jax.nn.sigmoid(a)) * jnp.sin(b),
    lambda a, b: a + b.sum() / len(b),
    lambda a, b: jnp.exp(a - jnp.maximum(a, b)),
]


class Pair(NamedTuple):
    h: Any
    c: Any


def grown(rng, matrices, rows, number):
    """So many rows made of others, and of products with some of the matrices."""
    pick = lambda items: items[rng.integers(len(items))]

    def row(depth):
        if depth == 0:
            return pick(rows)
        if matrices and rng.random() < 0.3:
            rows.append(matrices.pop(0)(jnp.tanh(row(depth - 1))))
            return rows[-1]
        if rng.random() < 0.6:
            return pick(ONE)(row(depth - 1))
        return pick(TWO)(row(depth - 1), row(depth - 1))

    return [jnp.sin(row(int(rng.integers(2, 5)))) for _ in range(number)]


def random_update(seed):
    """The same one whenever it is called."""

    def update(z_x, state, w_h, extra):
        rng = np.random.default_rng(seed)
        matrices, rows = list(w_h or ()), [z_x, z_x, *state, *extra]
        if matrices and rng.random() < 0.6:  # z_x in one sum with a product
            left = rows[rng.integers(2, len(rows))]
            rows[:2] = [z_x + matrices.pop(0)(jnp.sin(left))] * 2
        return Pair(*grown(rng, matrices, rows, len(state)))

    return update


def random_body(seed, weights):
    w_x, w_h, extra = weights

    def of_a_row(state, x):
        rng = np.random.default_rng(seed)
        matrices = [lambda a, w=w: a @ w for w in w_h]
        joined = x[0] @ w_x + matrices.pop(0)(state[0])
        rows = [joined, x[1], *state, *extra]
        *new, y = grown(rng, matrices, rows, 3)
        return tuple(new), {"y": y, "h": (state, new)[rng.integers(2)][0]}

    return jax.vmap(of_a_row)


def problem(seed, dtype):
    """What `cell` is given, with masks of all kinds."""
    rng = np.random.default_rng(seed)
    B, T, D, H = (
        int(rng.choice(a))
        for a in ([1, 3, 9, 41], [1, 4, 11], [1, 5], [1, 2, 5, 19, 33])
    )
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
    scaled = lambda *shape: draw(*shape) / np.sqrt(shape[0]).astype(dtype)
    w_h = [scaled(H, H) for _ in range(rng.integers(4))]
    w_h = [w[:, :1, None] if rng.random() < 0.3 else w for w in w_h]  # H blocks
    params = jaxseq.CellParams(scaled(D, H), w_h or None, draw(H), [draw(H), draw(H)])
    x, state = draw(B, T, D), Pair(draw(B, H), draw(B, H))
    options: dict[str, Any] = {"reverse": bool(rng.integers(2))}
    masks = {
        "lengths": jnp.asarray(rng.integers(0, T + 1, B)),
        "mask": jnp.asarray(rng.random((B, T)) < 0.7),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    options |= {name: a for name, a in masks.items() if rng.random() < 0.3}
    starts = [None, Pair(draw(H), draw(H)), Pair(draw(B, H), draw(B, H))]
    start = starts[rng.integers(3)] if "resets" in options else None
    return (params, x, state, start), options


# why a program goes back by the loop: it is long, or short, or it stacks rows
NO_WAY_BACK = "registers", "arrays", "stages", "pieces of rows", "reads nothing"
NO_WAY_BACK = *NO_WAY_BACK, "the kernel has no stack"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How many passes are traced as calls of the kernels, and how many are too long."""
    found = Counter()

    def spied(name, real):
        return lambda *args: (found.update([name]), real(*args))[1]

    def why_not_back(*args, real=limits.why_not_back):
        reason = real(*args)
        if reason is not None:
            assert any(word in reason for word in NO_WAY_BACK), reason
            found["loop"] += 1
        return reason

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call, "forward", spied("forward", call.forward))
        patch.setattr(back, "backward", spied("backward", back.backward))
        patch.setattr(limits, "why_not_back", why_not_back)
        yield found


def program(seed, name, dtype):
    """Values and gradients, as a function of its arguments, and these."""
    args, options = problem(seed, dtype)
    update = random_update(seed)
    times_first = seed % 3 == 0  # rows are a mapped axis behind time

    def f(params, x, state, start):
        of = lambda x, state, start, options: jaxseq.cell(
            update, params, x, state, start=start, **options, implementation=name
        )
        fixed = {"reverse": options["reverse"]}
        rows = {k: a for k, a in options.items() if k not in fixed}
        if not times_first:
            return of(x, state, start, options)
        axes = {k: 0 if a.ndim == 1 else 1 for k, a in rows.items()}
        rows = {k: jnp.swapaxes(a, 0, axes[k]) for k, a in rows.items()}
        whole = start is None or start.h.ndim == 1
        run = lambda x, state, start, rows: of(x, state, start, rows | fixed)
        run = jax.vmap(run, (1, 0, None if whole else 0, axes), (0, 1))
        return run(jnp.swapaxes(x, 0, 1), state, start, rows)

    @jax.jit
    def run(args):
        out, pull = jax.vjp(f, *args)
        # values by themselves, as they are computed otherwise with a gradient
        return f(*args), out, pull(jax.tree.map(jnp.cos, out))

    return run, args


def evaluated(seed, name, dtype):
    run, args = program(seed, name, dtype)
    return numbers(run(args))


def numbers(out):
    return [np.asarray(a, np.float64) for a in jax.tree.leaves(out)]


def in_float32(seed):
    """What the plain scan gives for the arguments, and for some that are near them."""
    run, args = program(seed, "scan", jnp.float32)
    rng, eps = np.random.default_rng(seed), np.finfo(np.float32).eps

    def near(a):
        return a * (1 + eps * rng.integers(-1, 2, a.shape)).astype(np.float32)

    return [
        numbers(run(args)),
        *(numbers(run(jax.tree.map(near, args))) for _ in "123"),
    ]


def native(seed, dtype):
    """What the kernels compute, on vectors of one of the widths."""
    with pytest.MonkeyPatch.context() as patch, counted() as ran:
        patch.setattr(call, "VECTORS", seed % 3)
        try:
            found = evaluated(seed, "native", dtype)
        except ValueError as error:  # few are so long
            if "registers" not in str(error):
                raise
            pytest.skip(str(error))
    assert ran["forward"] == 2 and ran["backward"] + ran["loop"] == 1
    return found


@pytest.mark.every(2)
@pytest.mark.parametrize("seed", range(N))
def test_a_random_program(seed):
    """As exact as the plain scan, but for a few ulps, however it is conditioned."""
    exact = evaluated(seed, "scan", jnp.float64)
    plain = zip(*in_float32(seed), strict=True)
    plain = [np.stack(some) for some in plain]  # of each result some that are near
    largest = lambda a: np.abs(a).max(initial=0)
    for dtype in (jnp.float64, jnp.float32):
        eps = np.finfo(dtype).eps
        for a, b, c in zip(native(seed, dtype), exact, plain, strict=True):
            # a derivative may be none, and that of float32 nearly one of zero
            is_finite = np.isfinite(b)
            a, b, c = a[is_finite], b[is_finite], c[:, is_finite]
            moved, size = np.nan_to_num(largest(c - b)), max(1, largest(b))
            # which of two equal numbers is the larger, say: without optimization, as
            # these tests compile, XLA may compute a number twice, and not alike
            if moved > size / 100:
                continue
            # arguments are moved by an ulp, and functions are exact to 2.5 of them
            ulps = moved / np.finfo(jnp.float32).eps
            least = 1e-12 if dtype == jnp.float64 else 8 * eps
            assert largest(a - b) <= 10 * eps * ulps + least * size


def body_problem(seed):
    """Weights, the state and inputs of a scan, and whether it is reversed."""
    rng = np.random.default_rng(seed)
    B, T, D, H = (
        int(rng.choice(a)) for a in ([1, 3, 41], [2, 5], [1, 4], [1, 2, 7, 19])
    )
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    w_h = [draw(H, H) / H**0.5 for _ in range(rng.integers(1, 4))]
    weights = draw(D, H), w_h, [draw(H), draw(H)]
    args = weights, (draw(B, H), draw(B, H)), (draw(T, B, D), draw(T, B, H))
    return args, bool(rng.integers(2))


@pytest.mark.every(2)
@pytest.mark.parametrize("seed", range(N))
def test_a_random_body(seed, monkeypatch):
    """The kernels run most of them, as the last test finds."""
    monkeypatch.setattr(call, "VECTORS", seed % 3)
    args, reverse = body_problem(seed)

    @jax.jit
    def both(*args):
        def run(scan):
            def f(weights, *args):
                return scan(random_body(seed, weights), *args, reverse=reverse)

            out, pull = jax.vjp(f, *args)
            return f(*args), out, pull(jax.tree.map(jnp.cos, out))

        return run(jaxseq.scan), run(lax.scan)

    for a, b in zip(*map(jax.tree.leaves, both(*args)), strict=True):
        # where no gradient comes in, `lax.scan` has zeros, times an infinite derivative
        a, b = (np.asarray(each)[np.isfinite(b)] for each in (a, b))
        most = 1e-12 * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=most)


def test_most_random_programs_are_run_by_the_kernels():
    """Those that are too long to go back by the kernels do so by the loop."""
    both = 0
    for seed in range(10):
        run, args = program(seed, "native", jnp.float64)
        with counted() as ran:
            run.lower(args)
        both += ran["forward"] == 2 and ran["backward"] == 1
    assert both >= 7


def test_many_random_bodies_are_run_by_the_kernels():
    both = 0
    for seed in range(20):
        args, _ = body_problem(seed)

        def run(w, *args, seed=seed):
            f = lambda *args: jaxseq.scan(random_body(seed, w), *args)
            out, pull = jax.vjp(f, *args)
            return pull(out)

        with counted() as ran:
            jax.jit(run).lower(*args)
        both += ran["forward"] == 1 and ran["backward"] == 1
    assert both >= 11
