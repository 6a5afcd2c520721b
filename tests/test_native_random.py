"""Random programs by the native kernels, against the plain scan."""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq

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


def random_update(seed):
    """The same one whenever it is called."""

    def update(z_x, state, w_h, extra):
        rng = np.random.default_rng(seed)
        matrices, rows = list(w_h or ()), [z_x, z_x, *state, *extra]
        pick = lambda items: items[rng.integers(len(items))]
        if matrices and rng.random() < 0.6:  # z_x in one sum with a product
            rows[:2] = [z_x + matrices.pop(0)(jnp.sin(pick(rows[2:])))] * 2

        def row(depth):
            if depth == 0:
                return pick(rows)
            if matrices and rng.random() < 0.3:
                rows.append(matrices.pop(0)(jnp.tanh(row(depth - 1))))
                return rows[-1]
            if rng.random() < 0.6:
                return pick(ONE)(row(depth - 1))
            return pick(TWO)(row(depth - 1), row(depth - 1))

        return Pair(*(jnp.sin(row(int(rng.integers(2, 5)))) for _ in state))

    return update


def problem(seed, dtype):
    """What `cell` is given, with masks of all kinds."""
    rng = np.random.default_rng(seed)
    B, T, D, H = (
        int(rng.choice(a)) for a in ([1, 3, 9], [1, 4], [1, 5], [1, 2, 5, 19])
    )
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
    scaled = lambda *shape: draw(*shape) / np.sqrt(shape[0]).astype(dtype)
    w_h = [scaled(H, H) for _ in range(rng.integers(4))]
    params = jaxseq.CellParams(scaled(D, H), w_h or None, draw(H), [draw(H), draw(H)])
    x, state = draw(B, T, D), Pair(draw(B, H), draw(B, H))
    options: dict[str, Any] = {"reverse": bool(rng.integers(2))}
    masks = {
        "lengths": jnp.asarray(rng.integers(0, T + 1, B)),
        "mask": jnp.asarray(rng.random((B, T)) < 0.7),
        "resets": jnp.asarray(rng.random((B, T)) < 0.3),
    }
    options |= {name: a for name, a in masks.items() if rng.random() < 0.3}
    return (params, x, state), options


def evaluated(seed, name, dtype):
    args, options = problem(seed, dtype)
    update = random_update(seed)

    @jax.jit
    def run(args):
        f = lambda *args: jaxseq.cell(update, *args, **options, implementation=name)
        # values by themselves, as they are computed otherwise with a gradient
        out, pull = jax.vjp(f, *args)
        return f(*args), out, pull(jax.tree.map(jnp.cos, out))

    return [np.asarray(a, np.float64) for a in jax.tree.leaves(run(args))]


@pytest.mark.parametrize("seed", range(N))
def test_a_random_program(seed):
    exact = evaluated(seed, "scan", jnp.float64)
    for a, b in zip(evaluated(seed, "native", jnp.float64), exact, strict=True):
        most = 1e-12 * max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=most)
    # float32, no worse than the plain scan is, but for a few ulps
    others = [evaluated(seed, name, jnp.float32) for name in ("native", "scan")]
    for a, plain, b in zip(*others, exact, strict=True):
        error, of_plain = (np.abs(c - b).max(initial=0) for c in (a, plain))
        ulp = np.finfo(np.float32).eps * max(1, np.abs(b).max(initial=0))
        # which may be NaN itself, where a derivative is nearly one of zero
        assert error <= 4 * np.nan_to_num(of_plain) + 8 * ulp
