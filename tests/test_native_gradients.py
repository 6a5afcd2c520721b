"""Gradients of matrices and inputs by the native kernels, against XLA's and NumPy's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from jaxseq._kernels.cpu import build, limits
from jaxseq._kernels.cpu import gradients as native
from tests.native.problems import (
    CLOSE,
    built_in,
    check,
    normal,
    only_valid,
    random_weights,
)

pytestmark = pytest.mark.usefixtures("native_library", "few")


@pytest.fixture
def few(monkeypatch):
    """Few rows go to the kernels too."""
    monkeypatch.setattr(limits, "FEW", 0)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def ran(monkeypatch):
    """Of each sum whose gradients the kernels computed, how many terms it has."""
    found = []
    real = native.gradients

    def gradients(spec, factors, terms, d):
        found.append(tuple(map(len, terms)))
        return real(spec, factors, terms, d)

    monkeypatch.setattr(native, "gradients", gradients)
    return found


def kernel(d, sides, matrices, bias, vectors=2, **bits):
    """The custom call; `sides` are arrays, or pairs of one and its first rows."""
    T, B, N = d.shape
    turned = bits.get("turned", 0)
    pairs = [a if isinstance(a, tuple) else (a,) for a in sides]
    flat = [a for pair in pairs for a in pair]
    shapes = [(pair[0].shape[-1], N) for pair in pairs] + [(N,)] * bias
    for i, w in enumerate(matrices, len(sides)):
        shapes.append((B, T, len(w)) if turned >> i & 1 else (T, B, len(w)))
    out = [jax.ShapeDtypeStruct(shape, d.dtype) for shape in shapes]
    how = {"lefts": len(sides), "turned": 0, "before": 0, "reverse": 0, **bits}
    how = {"members": -1, "own": "", **how}
    f = jax.ffi.ffi_call(build.GRADIENTS, out, vmap_method="sequential")
    return f(d, *flat, *matrices, vectors=vectors, **how)


# steps, rows, columns of d, of left sides
SIZES = [
    (5, 4, 37, (3, 8, 17)),
    (1, 1, 1, (1, 1)),
    (3, 70, 130, (9,)),
    (200, 2, 48, (24, 16)),
    (7, 9, 33, (530, 1)),
    (2, 100, 8, ()),
]


@pytest.mark.every(5)
@pytest.mark.parametrize("vectors", [0, 1, 2], ids=["plain", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel(size, dtype, vectors):
    T, B, N, widths = size
    d = normal(1, T, B, N, dtype=dtype)
    lefts = [normal(2 + i, T, B, F, dtype=dtype) for i, F in enumerate(widths)]
    ws = [normal(9 + i, F, N, dtype=dtype) for i, F in enumerate(widths)]
    found = kernel(d, lefts, ws, True, vectors)
    numbers = [np.asarray(a, np.float64) for a in (d, *lefts, *ws)]
    d, lefts, ws = numbers[0], numbers[1 : len(ws) + 1], numbers[len(ws) + 1 :]
    right = [
        *(np.einsum("tbi,tbj->ij", a, d) for a in lefts),
        d.sum((0, 1)),
        *(d @ w.T for w in ws),
    ]
    for a, b in zip(found, right, strict=True):
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(np.asarray(a) / scale, b / scale, **CLOSE[dtype])


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("size", [(5, 4, 37, 9), (1, 3, 8, 8), (60, 7, 30, 11)])
def test_arrays_as_they_lie(size, reverse):
    """By row of the batch, and what an array was before each step."""
    T, B, N, F = size
    d, x, y = normal(1, T, B, N), normal(2, B, T, F), normal(3, B, T, F)
    z, first, w = normal(4, T, B, F), normal(5, B, F), normal(6, F, N)
    lefts = [x, (y, first), (z, first)]
    how = {"turned": 0b1011, "before": 0b110, "reverse": reverse}
    found = kernel(d, lefts, [w], True, **how)

    def before(a):
        parts = [a[1:], first[None]] if reverse else [first[None], a[:-1]]
        return np.concatenate(parts)

    sides = [np.swapaxes(x, 0, 1), before(np.swapaxes(y, 0, 1)), before(np.asarray(z))]
    right = [np.einsum("tbi,tbj->ij", a, d) for a in sides]
    right += [np.sum(d, (0, 1)), np.swapaxes(d @ w.T, 0, 1)]
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_call_that_is_wrong():
    d, a, w = normal(1, 5, 4, 8), normal(2, 5, 4, 3), normal(3, 3, 8)
    wrong: list[Any] = [
        (d, [a[:4]], [], False, {}),
        (d, [a[:, :3]], [], False, {}),
        (d, [a], [], False, {"turned": 1}),
        (d, [(a, a[0, :3])], [], False, {"before": 1}),
        (d, [a], [], False, {"before": 2}),
        (d, [a], [], False, {"before": 1}),
        (d, [a], [], False, {"lefts": 2}),
        (d, [a], [], False, {"lefts": -1}),
        (d, [], [w[:, :7]], False, {}),
        (d, [], [w.astype(jnp.float32)], False, {}),
    ]
    for *args, bits in wrong:
        with pytest.raises(jax.errors.JaxRuntimeError, match="jaxseq: "):
            jax.block_until_ready(kernel(*args, **bits))


def test_the_same_bits_for_any_number_of_threads():
    """Each sum is taken in one order, whoever takes it."""
    d, a = (
        normal(1, 50, 9, 300, dtype=jnp.float32),
        normal(2, 50, 9, 70, dtype=jnp.float32),
    )
    w = normal(3, 70, 300, dtype=jnp.float32)
    first = kernel(d, [a], [w], True)
    for _ in range(5):
        for b, c in zip(kernel(d, [a], [w], True), first, strict=True):
            np.testing.assert_array_equal(b, c)
    # and some of the columns alone, which are split otherwise
    some = kernel(d[..., :96], [a], [], True)
    np.testing.assert_array_equal(some[0], first[0][:, :96])


def gradients(name, f, args, wanted, **options):
    """What `f` gives and its gradients for some arguments."""

    def run(*args):
        def value(*some):
            whole = list(args)
            for i, a in zip(wanted, some, strict=True):
                whole[i] = a
            return f(*whole, **options, implementation=name)

        out, pull = jax.vjp(value, *(args[i] for i in wanted))
        return out, pull(jax.tree.map(jnp.cos, out))

    return jax.jit(run)(*args)


def both(f, args, wanted, others=(), **options):
    """By the native kernels and by `others`, against the plain scan."""
    right = gradients("scan", f, args, wanted, **options)
    for name in ("native", *others):
        check((gradients(name, f, args, wanted, **options), right))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reverse": True},
    {"lengths": jnp.asarray([7, 0, 3])},
    {"lengths": jnp.asarray([7, 0, 3]), "reverse": True},
    {"mask": jnp.arange(21).reshape(3, 7) % 3 > 0},
    {"resets": jnp.arange(21).reshape(3, 7) % 4 == 1},
    {"resets": jnp.arange(21).reshape(3, 7) % 4 == 1, "reverse": True},
    {"remat": 3},
]


@pytest.mark.every(5)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o) or "plain")
def test_options(op, options, ran):
    f, params = built_in(op, 5, 19, jnp.float64)
    x = only_valid(normal(1, 3, 7, 5), options)
    both(f, (params, x), (0, 1), ["loop"], **options)
    assert ran


@pytest.mark.every(2)
@pytest.mark.parametrize(
    "wanted", [(0,), (1,), (2,), (3,), (0, 2)], ids=["w_x", "w_h", "b", "x", "w_x b"]
)
def test_only_what_is_asked_for(wanted, ran):
    def lstm(w_x, w_h, b, x, implementation):
        params = jaxseq.LSTMParams(w_x, w_h, b)
        return jaxseq.lstm(params, x, implementation=implementation)

    params = random_weights(jaxseq.lstm_init, 5, 19)
    args = params.w_x, params.w_h, normal(2, 76), normal(1, 3, 7, 5)
    both(lstm, args, wanted)
    matrices = sum(i < 2 for i in wanted)
    assert ran == [(int(3 in wanted), matrices, int(2 in wanted))]


def test_what_is_not_used_is_not_computed():
    """A gradient of inputs is a call of its own, which XLA leaves out."""
    f, params = built_in("lstm", 5, 19, jnp.float64)
    run = lambda params, x: gradients("native", f, (params, x), (0, 1))
    args = params, normal(1, 3, 7, 5)
    calls = []
    for some in (run, lambda *a: run(*a)[1][0], lambda *a: run(*a)[1][1]):
        text = jax.jit(some).lower(*args).compile().as_text()
        calls.append(str(text).count(f'custom_call_target="{build.GRADIENTS}"'))
    assert calls == [2, 1, 1]


def test_finite_differences():
    f, params = built_in("lstm", 3, 5, jnp.float64)
    run = lambda params, x: f(params, x, implementation="native")[1]
    check_grads(run, (params, normal(1, 2, 4, 3)), 2, ["rev"], 1e-5, 1e-5)


def test_second_biases_are_summed_in_the_same_sweep(ran):
    """No pass over what is over time is left, for any number of gates with one."""
    f, params = built_in("gru", 5, 19, jnp.float64)
    for b in (params.b_hn, normal(2, 57)):
        del ran[:]
        args = params._replace(b_hn=b), normal(1, 3, 7, 5)
        run = jax.jit(partial(gradients, "native", f, wanted=(0, 1)))
        assert " reduce(" not in str(run.lower(args).compile().as_text())
        assert sorted(ran) == [(0, 1, 1), (1, 1, 1)]
        both(f, args, (0, 1))
    # the bias by itself, as without the kernels
    only = lambda b, *args, **how: f(params._replace(b_hn=b), *args, **how)
    both(only, (params.b_hn, args[1]), (0,))


def test_few_rows_go_by_xla(monkeypatch, ran):
    f, params = built_in("lstm", 3, 5, jnp.float64)
    monkeypatch.setattr(limits, "FEW", 12)
    for T in (5, 6):
        both(f, (params, normal(1, 2, T, 3)), (0, 1))
    assert len(ran) == 1


def test_a_chain_of_products(ran):
    params = random_weights(MULTIPLICATIVE_LSTM.init, 3, 17)

    def run(params, x, implementation):
        zeros = MULTIPLICATIVE_LSTM.zeros(params, (6,))
        update = MULTIPLICATIVE_LSTM.update
        return jaxseq.cell(update, params, x, zeros, implementation=implementation)

    both(run, (params, normal(1, 6, 5, 3)), (0, 1))
    assert ran


def test_inputs_that_pass_or_have_two_matrices(ran):
    """Inputs without a matrix, and a tree of them with one for each."""

    def update(z, h, w, _):
        return jnp.tanh(z[0] + w["a"](h)) * z[1] + jnp.tanh(z[2] + w["b"](h))

    w_x = normal(1, 3, 6), None, normal(2, 4, 6)
    w_h = {"a": normal(3, 6, 6), "b": normal(4, 6, 6)}
    x = normal(5, 4, 7, 3), normal(6, 4, 7, 6), normal(7, 4, 7, 4)

    def run(w_x, w_h, x, implementation):
        params = jaxseq.CellParams(w_x, w_h, None)
        how = {"zeros": 6, "implementation": implementation}
        return jaxseq.cell(update, params, x, **how)

    both(run, (w_x, w_h, x), (0, 1, 2), ["loop"])
    assert ran


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 2, 4), (1, 6, 6)], ids=str)
def test_matrices_in_blocks(shape, turned, ran):
    N, I, O = shape
    H, Z = N * I, N * O
    params = jaxseq.CellParams(normal(1, 3, Z), normal(2, *shape), normal(5, Z))

    def run(params, x, implementation):
        update = lambda z, h, w, _: jnp.tanh((z + w(h)).reshape(-1, H)).prod(0)
        how: Any = {"zeros": H, "implementation": implementation}
        one = lambda x: jaxseq.cell(update, params, x, **how)
        return one(x) if turned else jax.vmap(one, 1)(x)

    x = normal(3, 4, 7, 3) if turned else normal(3, 7, 4, 3)
    both(run, (params, x), (0, 1), ["loop"])
    assert ran


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("shape", [(3, 1, 2, 2, 2), (2, 3, 1, 1, 4)], ids=str)
def test_blocks_of_several_gates(shape, members, ran):
    """As bodies have them that map products over their heads."""
    N, P, I, Q, O = shape
    w_x, w_h = normal(1, 3, Q * N * O), normal(2, members or 1, *shape)
    state, xs = normal(3, 2, P, N, I), normal(4, 5, 2, 3)

    def run(w_x, w_h, state, xs, implementation):
        scan = jaxseq.scan if implementation == "native" else jax.lax.scan

        def step(h, x):
            z = (x @ w_x).reshape(-1, Q, N, O) + jnp.einsum("bpni,npiqo->bqno", h, w_h)
            new = jnp.tanh(z).sum((1, 3))[:, None, :, None] * jnp.cos(h)
            return new, new

        return scan(step, state, xs)

    one = lambda name, *args: gradients(name, run, args, (0, 1, 2, 3))
    args = w_x, w_h if members else w_h[0], state, xs
    axes = None, None, 0, None, None
    get = jax.vmap(one, axes) if members else one
    check((get("native", *args), get("scan", *args)))
    assert ran


def value(f, name, params, x):
    return jnp.sum(jnp.sin(f(params, x, implementation=name)[1]))


def test_vmap(ran):
    """Each member has gradients of its own; those of rows of a batch are summed."""
    f, params = built_in("lstm", 3, 6, jnp.float64)
    x = normal(1, 4, 3, 5, 3)

    def members(name):
        return jax.vmap(jax.grad(partial(value, f, name), (0, 1)), (None, 0))(params, x)

    def rows(name):
        def run(params, x):
            y = jax.vmap(lambda x: f(params, x, implementation=name)[1], 1)(x)
            return jnp.sum(jnp.sin(y))

        return jax.grad(run, (0, 1))(params, x[0])

    for each in (members, rows):
        del ran[:]
        check([jax.jit(partial(each, name))() for name in ("native", "scan")])
        assert len(ran) == 1


def test_derivatives_of_derivatives(ran):
    f, params = built_in("lstm", 3, 5, jnp.float64)
    x, v = normal(1, 2, 4, 3), normal(2, 3, 20)

    def second(name):
        run = partial(value, f, name)
        d = lambda params, x: (jax.grad(run)(params, x).w_x * v).sum()
        both = jax.jvp(jax.grad(run), (params, x), (params, x))
        return jax.grad(d, (0, 1))(params, x), jax.hessian(run, 1)(params, x), both

    check([jax.jit(partial(second, name))() for name in ("native", "scan")])
    assert ran


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_shard_map(op, ran):
    """Gradients of weights that all devices have are summed over them."""
    f, params = built_in(op, 3, 6, jnp.float64)
    x = normal(1, 4, 5, 3)
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    P = PartitionSpec

    def run(name):
        def loss(params, x):
            return jax.lax.psum(value(f, name, params, x), "rows")

        specs: Any = {"in_specs": (P(), P("rows")), "out_specs": (P(), P("rows"))}
        one = jax.shard_map(jax.grad(loss, (0, 1)), mesh=mesh, **specs)
        return jax.jit(one)(params, x)

    right = jax.grad(partial(value, f, "scan"), (0, 1))(params, x)
    check((run("native"), right))
    assert ran


def test_members_in_a_shard_map():
    f, params = built_in("gru", 3, 6, jnp.float64)
    params = jax.tree.map(lambda a: jnp.stack([a, 1.1 * a]), params)
    x, P = normal(1, 2, 4, 5, 3), PartitionSpec
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))

    def loss(params, x, name):
        run = jax.vmap(lambda params, x: f(params, x, implementation=name)[1])
        specs: Any = {"in_specs": (P(), P(None, "rows")), "out_specs": P(None, "rows")}
        return jnp.sin(jax.shard_map(run, mesh=mesh, **specs)(params, x)).sum()

    run = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    check((run(params, x, None), run(params, x, "scan")))


def test_several_devices_go_by_xla(ran):
    f, params = built_in("lstm", 3, 6, jnp.float64)
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, PartitionSpec("rows"))
    x = jax.device_put(normal(1, 4, 5, 3), place)
    right = jax.grad(partial(value, f, "scan"), (0, 1))(params, x)
    found = jax.jit(jax.grad(partial(value, f, None), (0, 1)))(params, x)
    check((found, right))
    assert not ran


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_axes_of_the_batch(batch, ran):
    f, params = built_in("lstm", 3, 6, jnp.float64)
    both(f, (params, normal(1, *batch, 5, 3)), (0, 1))
    assert ran


def test_it_is_chosen_as_forward_is(monkeypatch, ran):
    f, params = built_in("lstm", 3, 6, jnp.float64)
    run = partial(value, f, None)
    for switch, times in ((None, 1), ("0", 0)):
        monkeypatch.delenv(build.SWITCH, raising=False)
        if switch is not None:
            monkeypatch.setenv(build.SWITCH, switch)
        jax.clear_caches()
        del ran[:]
        jax.jit(jax.grad(run))(params, normal(1, 2, 4, 3))
        assert len(ran) == times
