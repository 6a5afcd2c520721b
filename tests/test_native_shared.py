"""What rows or steps share, which the native kernels compute once for all of them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxseq
from jaxseq._kernels.cpu import back, call
from jaxseq._kernels.cpu.code import CODE
from jaxseq._kernels.cpu.program import Program
from jaxseq._kernels.cpu.runs import SHARED
from jaxseq._kernels.cpu.schedule import Fold, Multiply
from tests.native.problems import check, gradients, normal
from tests.test_native_rows import both, of_scan

pytestmark = pytest.mark.usefixtures("native_library")

PERIODS = np.array([1, 1, 2, 2, 4])


@pytest.fixture
def programs(monkeypatch):
    """The programs that are run, forward and back."""
    found: list[Program] = []

    def spy(module, name):
        real = getattr(module, name)

        def run(*args):
            out = real(*args)
            found.append(out if isinstance(out, Program) else out.program)
            return out

        monkeypatch.setattr(module, name, run)

    spy(call, "program_of")
    spy(back, "back_of")
    return found


def clockwork(w):
    """Parts of h that move at some steps only, by a counter of all rows."""

    def body(state, x):
        h, t = state
        new = jnp.tanh(x @ w["x"] + h @ w["h"] + w["b"])
        h = jnp.where(t % PERIODS.astype(t.dtype) == 0, new, h)
        return (h, t + 1), (h, t)

    return body


WEIGHTS = {"x": normal(1, 3, 5), "h": normal(2, 5, 5) / 2, "b": normal(3, 5)}


@pytest.mark.parametrize("B", [1, 3, 70])
def test_a_clockwork_rnn_is_that_of_its_equations(B, programs):
    w, x, h = WEIGHTS, normal(4, 7, B, 3), normal(5, B, 5)
    found = jax.jit(lambda x: jaxseq.scan(clockwork(w), (h, jnp.int64(3)), x))(x)
    (last, end), (ys, ts) = found
    h = np.asarray(h)
    for t in range(7):
        moves = (t + 3) % PERIODS == 0
        a = np.asarray(x[t]) @ w["x"] + h @ w["h"] + w["b"]
        h = np.where(moves, np.tanh(a), h)
        np.testing.assert_allclose(ys[t], h, rtol=0, atol=1e-12)
    np.testing.assert_allclose(last, h, rtol=0, atol=1e-12)
    assert end == 10 and ts.tolist() == list(range(3, 10))
    assert SHARED in programs[-1].columns


@pytest.mark.parametrize("B", [2, 40])
def test_its_gradients(B, ran, programs):
    state = normal(5, B, 5), jnp.int32(2)
    check(of_scan(clockwork, WEIGHTS, state, normal(4, 6, B, 3)))
    assert both(ran)
    assert all(SHARED in program.columns for program in programs)


@pytest.mark.parametrize("mapped", [(0, None), (0, 0), (None, 0)])
def test_rows_of_several_bodies_share_nothing(mapped, ran):
    """Counters of a mapped axis differ between the rows of a block."""
    N, B = 3, 4
    h, t = normal(5, *(N, B)[mapped[0] is None :], 5), jnp.arange(N) * 2
    t = t if mapped[1] == 0 else t[1]
    xs = normal(4, N, 6, B, 3)

    def run(scan):
        one = lambda h, t, x: scan(clockwork(WEIGHTS), (h, t), x)
        f = lambda h, x: jax.vmap(one, (*mapped, 0))(h, t, x)

        def pulled(h, x):
            out, pull = jax.vjp(lambda h, x: f(h, x)[1][0], h, x)
            return f(h, x), pull(jnp.cos(out))

        return jax.jit(pulled)(h, xs)

    for a, b in zip(
        *map(jax.tree.leaves, map(run, (jaxseq.scan, lax.scan))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert both(ran)


def test_members_share_in_their_own_rows(ran):
    """Each member has weights and a counter of its own."""
    w = jax.tree.map(lambda a: normal(6, 3, *a.shape) / 2, WEIGHTS)
    h, t, x = normal(5, 4, 5), jnp.asarray([0, 1, 5]), normal(4, 6, 4, 3)

    def run(scan):
        f = lambda w, t: scan(clockwork(w), (h, t), x)
        return jax.jit(jax.vmap(f))(w, t)

    for a, b in zip(
        *map(jax.tree.leaves, map(run, (jaxseq.scan, lax.scan))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert "forward" in ran


def test_inputs_without_rows(ran, programs):
    """The number of a step, a flag, and a vector of it, beside a counted step."""

    def make(w):
        def body(state, now):
            h, s, t = state
            x, number, flag, gain = now
            part = jnp.sin(number) * jnp.where(flag, gain[0, 0], 1)
            s = 0.9 * s + part
            scale = jnp.exp(-s) + jnp.log1p(t.astype(s.dtype))
            h = jnp.tanh(x @ w["x"] + h @ w["h"]) * scale + part * w["b"]
            return (h, s, t + 1), (h, s, part, t)

        return body

    T, B = 6, 33
    numbers, flags = jnp.arange(T, dtype=float), jnp.asarray([True, False] * 3)
    xs = normal(1, T, B, 3), numbers, flags, normal(2, T, 1, 1)
    state = normal(3, B, 5), jnp.asarray(0.5), jnp.int32(0)
    check(of_scan(make, WEIGHTS, state, xs))
    assert both(ran) and SHARED in programs[0].columns


class Pair(NamedTuple):
    h: Any
    c: Any


def adaptive(z_x, state, w_h, extra):
    """Much of it is computed of weights alone."""
    tau = jax.nn.softplus(extra["tau"])
    gain = extra["gain"] / jnp.sqrt((extra["gain"] ** 2).mean() + 0.1)
    alpha = jnp.exp(-1 / tau)
    first = jax.nn.softmax(jnp.concatenate([extra["tau"], extra["one"]]))[:-1]
    h = jnp.tanh(z_x + w_h(state.h) * gain * jax.nn.sigmoid(extra["one"]))
    c = alpha * state.c + (1 - alpha) * h * extra["gain"].max()
    return Pair(h + first * c.sum(), c)


def run_adaptive(B, H, **options):
    extra = {"tau": normal(1, H), "gain": normal(2, H), "one": normal(3, 1)}
    params = jaxseq.CellParams(
        normal(4, 3, H), normal(5, H, H) / H**0.5, normal(6, H), extra
    )

    def run(params, x, implementation):
        how = {"implementation": implementation, **options}
        return jaxseq.cell(adaptive, params, x, zeros=Pair(H, H), **how)

    return gradients(run, params, normal(7, B, 5, 3))


@pytest.mark.every(2)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("B, H", [(1, 6), (3, 17), (40, 8)])
def test_of_weights_alone(B, H, masked, ran, programs):
    rng = np.random.default_rng(0)
    masks = {
        "lengths": jnp.asarray(rng.integers(0, 6, B)),
        "resets": jnp.asarray(rng.random((B, 5)) < 0.3),
    }
    check(run_adaptive(B, H, **(masks if masked else {})))
    assert both(ran)
    for program in programs:
        assert 0 < program.before < len(program.actions)


@pytest.mark.parametrize("B", [1, 2, 5])
def test_of_weights_alone_where_threads_share_a_step(B):
    """Each has some of the units, and what all have in common."""

    def update(z_x, h, w_h, extra):
        return jnp.tanh(z_x + w_h(h) * jnp.exp(-(extra**2))) * jax.nn.softplus(extra)

    H = 211
    params = jaxseq.CellParams(
        normal(4, 3, H), normal(5, H, H) / H**0.5, normal(6, H), normal(1, H)
    )
    run = lambda params, x, implementation: jaxseq.cell(
        update, params, x, zeros=H, implementation=implementation
    )
    check(gradients(run, params, normal(7, B, 6, 3)))


def numbers_of_rows(z_x, h, w_h, extra):
    """One number of a row in all of others, in a part of one, and of those again."""
    a = z_x + w_h(h)
    m, n = a.mean(), a[1]
    both = jnp.concatenate([jnp.full(2, m * n), a[2:]])
    more = jnp.full_like(a, m)[:1] * jnp.sin(both) + both[0] * n
    even = jnp.stack([more, jnp.full_like(a, n)], 1).reshape(-1)[: len(a)]
    return jnp.tanh(even + (m + n) * extra + more.sum() * h)


def run_numbers_of_rows(B, H):
    params = jaxseq.CellParams(
        normal(4, 3, H), normal(5, H, H) / H**0.5, normal(6, H), normal(1, H)
    )
    run = lambda params, x, implementation: jaxseq.cell(
        numbers_of_rows, params, x, zeros=H, implementation=implementation
    )
    return gradients(run, params, normal(7, B, 5, 3))


@pytest.mark.parametrize("B, H", [(1, 3), (4, 5), (34, 21)])
def test_numbers_of_rows(B, H, ran):
    check(run_numbers_of_rows(B, H))
    assert both(ran)


def test_every_instruction_set(vectors):
    check(run_adaptive(3, 17))
    check(run_numbers_of_rows(4, 5))


def many(n, state, x):
    """Of many whole numbers, each made of two constants."""
    h, t = state
    k = h.astype(jnp.int32) + t
    for i in range(n):
        k = (k ^ jnp.int32(i + 2**29)) + jnp.int32(1)
    h = jnp.tanh(h @ jnp.ones((4, 4)) + x + k.astype(h.dtype) / 2.0**31)
    return (h, t + 1), (h, k)


@pytest.mark.parametrize("n", [3, 130])
def test_of_constants(n, ran, programs):
    """If there are registers, it is computed once; else anew in each step."""
    state, x = (normal(1, 3, 4), jnp.int32(0)), normal(2, 4, 3, 4)
    run = lambda scan: jax.jit(lambda x: scan(partial(many, n), state, x))(x)
    for a, b in zip(
        *map(jax.tree.leaves, map(run, (jaxseq.scan, lax.scan))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert "forward" in ran
    runs = [a for a in programs[-1].actions if not isinstance(a, Multiply | Fold)]
    longest = max(runs, key=lambda a: len(a.code))
    assert (longest.once > 0) == (n < 100)


def test_which_is_computed_how_often(programs):
    """Before all steps what is of weights, in a step once what is of its number."""

    def written(op):
        """What an instruction writes to, and whether it is before all steps."""
        program = programs[-1]
        for i, run in enumerate(program.actions):
            for line in getattr(run, "code", ()):
                if line[0] == CODE[op]:
                    places = run.places[line[1] : line[1] + 1]
                    yield i < program.before, [p.key[0] for p in places]

    def body(state, x):
        h, t = state
        h = jnp.tanh(x @ WEIGHTS["x"] + h @ WEIGHTS["h"]) + jnp.sin(t.astype(h.dtype))
        return (h, t + 1), h

    state, x = (normal(5, 4, 5), jnp.int32(2)), normal(4, 6, 4, 3)
    jax.jit(lambda x: jaxseq.scan(body, state, x)).lower(x)
    assert [is_before for is_before, _ in written("sin")] == [False]
    assert all(keys in ([], ["shared"]) for _, keys in written("sin"))
    assert SHARED in programs[-1].columns
    run_adaptive(4, 7)
    for op in ("log1p", "sqrt"):
        found = [is_before for is_before, _ in written(op)]
        assert found and all(found)


def test_results_are_stored_when_they_are_at_hand(programs):
    """Those of a GRU's way back need no product, but for the state."""
    params = jaxseq.gru_init(jax.random.key(0), 3, 4, dtype=jnp.float64)
    jax.grad(lambda x: jaxseq.gru(params, x)[1].sum())(jnp.ones((2, 3, 3)))
    first, product, last = programs[-1].actions
    assert isinstance(product, Multiply)
    stored = [first.places[to] for _, to, *_ in first.code if to < len(first.places)]
    assert sum(p.key[0] == "output" for p in stored) == 6
    assert sum(p.key[0] == "between" for p in stored) == 2
    assert {p.key[0] for p in last.places} == {"between", "product", "state"}
