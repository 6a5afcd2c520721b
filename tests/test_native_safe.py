"""The native kernels given what is wrong, and called from many threads at once."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxseq
from jaxseq._kernels.cpu import build, interface
from tests.native.cases import calls_of, cases

pytestmark = pytest.mark.usefixtures("native_library")
LONG = "JAXSEQ_TEST_UPDATES" in os.environ  # as make test-long sets it
CALLS = 10_000 if LONG else 200


def call_again(call):
    """The call as a function of its arguments."""
    like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in call.results]
    return jax.jit(lambda *args: jax.ffi.ffi_call(build.TARGET, like)(*args))


def outcome(run, *args):
    """Results, or the message of an error, which says what does not fit."""
    try:
        return jax.block_until_ready(run(*args))
    except Exception as error:
        assert "INVALID_ARGUMENT: jaxseq: " in str(error), error
        return str(error)


def some_calls():
    all_of = cases()
    names = "lstm-0 gru-1 cell-0-0 cell-1-1 cell-2-0".split()
    return {name: calls_of(all_of[name][0], *all_of[name][1])[-1] for name in names}


@pytest.fixture(scope="module")
def calls():
    return some_calls()


NAMES = "lstm-0 gru-1 cell-0-0 cell-1-1 cell-2-0".split()
VALUES = [0, 1, -1, 2, 3, 5, 31, 255, 1 << 20, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_numbers_in_a_program(name, calls):
    """Of a plan or of code: an error, or a result, but never a crash."""
    call, rng = calls[name], np.random.default_rng(0)
    run, outcomes = call_again(call), []
    for _ in range(2000 if LONG else 150):
        args = [a.copy() for a in call.arguments]
        for _ in range(rng.integers(1, 3)):
            numbers = args[rng.integers(2)].reshape(-1)
            at = rng.integers(numbers.size)
            near = numbers[at] + np.array([-1, 1], np.int32)
            numbers[at] = rng.choice([*VALUES, *near])
        outcomes.append(outcome(run, *args))
    assert {type(a) for a in outcomes} == {str, list}
    for a, b in zip(run(*call.arguments), call.results, strict=True):
        np.testing.assert_array_equal(a, b)


def changed(a, rng):
    """An array of another dtype or shape."""
    if rng.random() < 0.4:
        dtypes = [np.float32, np.float64, np.int32, np.bool_, np.int8, np.complex64]
        return np.zeros(a.shape, rng.choice(np.array(dtypes, object)))
    shape = list(a.shape)
    if not shape or rng.random() < 0.2:
        return np.zeros((*shape, 1), a.dtype)
    shape[rng.integers(len(shape))] = rng.choice([0, 1, shape[0] + 1, 7])
    return np.zeros(shape, a.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_and_dtypes(name, calls):
    call, rng, refused = calls[name], np.random.default_rng(0), 0
    tries = 100 if LONG else 12
    for _ in range(tries):
        both = [list(call.arguments), list(call.results)]
        some = both[rng.integers(2)]
        at = rng.integers(len(some))
        if rng.random() < 0.3:
            some.insert(at, some[at]) if rng.random() < 0.5 else some.pop(at)
        else:
            some[at] = changed(some[at], rng)
        wrong = call._replace(arguments=both[0], results=both[1])
        refused += type(outcome(call_again(wrong), *wrong.arguments)) is str
    assert refused > tries / 2


@pytest.mark.parametrize("arguments", [0, 1, 3, 4])
def test_few_arguments(arguments):
    target = jax.ffi.ffi_call(build.TARGET, jax.ShapeDtypeStruct((2, 2), jnp.float64))
    with pytest.raises(Exception, match="INVALID_ARGUMENT: jaxseq"):
        jax.block_until_ready(target(*[jnp.arange(9, dtype=jnp.int32)] * arguments))


def sum_of_extras(z_x, h, w_h, extra):
    return jnp.tanh(z_x + sum(extra))


def many_sums(z_x, h, w_h, extra):
    for _ in range(600):
        z_x = jnp.sin(z_x + z_x.sum())
    return z_x


def long(z_x, h, w_h, extra):
    for _ in range(3000):
        z_x = jnp.sin(z_x)
    return z_x


@pytest.mark.parametrize(
    "update, extra, word",
    [(sum_of_extras, 300, "registers"), (many_sums, 0, "arrays"), (long, 0, "long")],
)
def test_what_is_too_much_is_refused_while_tracing(update, extra, word):
    params = jaxseq.CellParams(None, None, None, [jnp.ones(2)] * extra)
    args = update, params, jnp.ones((1, 2, 2))
    with pytest.raises(ValueError, match=f"implementation: .*{word}"):
        jaxseq.cell(*args, zeros=2, implementation="native")


def lstm(B, T, D, H):
    params = jaxseq.lstm_init(jax.random.key(0), D, H)
    x = np.random.default_rng(0).standard_normal((B, T, D))
    return params, jnp.asarray(x, jnp.float32)


native = partial(jaxseq.lstm, implementation="native")


def resident():
    """Bytes of memory that this process holds, where Linux tells."""
    if not Path("/proc/self/statm").exists():
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf(
        "SC_PAGESIZE"
    )


def in_threads(run, number, threads=8):
    """Calls of `run(i)` from several threads that begin together."""
    barrier = threading.Barrier(threads)

    def some(k):
        barrier.wait()
        for i in range(k, number, threads):
            run(i)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (40, 3, 4, 5)])
def test_calls_at_once(shape):
    """From eight threads: all return, all are equal, and no memory is lost."""
    params, x = lstm(*shape)
    run = jax.jit(native)
    first = jax.tree.map(np.asarray, run(params, x))

    def call(_):
        for a, b in zip(*map(jax.tree.leaves, (run(params, x), first)), strict=True):
            np.testing.assert_array_equal(a, b)

    in_threads(call, CALLS // 4)
    before = resident()
    in_threads(call, CALLS)
    assert resident() < before + 64 * 2**20


def test_unlike_calls_at_once():
    """Of several programs and sizes, so that threads take memory of unlike sizes."""
    problems = [lstm(*shape) for shape in ((1, 2, 3, 4), (9, 5, 8, 33), (70, 2, 3, 16))]
    runs = [jax.jit(native).lower(*args).compile() for args in problems]
    first = [run(*args)[1] for run, args in zip(runs, problems, strict=True)]

    def call(i):
        k = i % len(runs)
        np.testing.assert_array_equal(runs[k](*problems[k])[1], first[k])

    in_threads(call, CALLS // 4)


def under_scan(params, x):
    step = lambda c, _: (native(params, c)[1] + x, ())
    return lax.scan(step, x, None, 4)[0]


def of_rows(params, x):
    return jax.vmap(lambda x: native(params, x)[1])(x)


def of_members(params, x):
    several = jax.tree.map(lambda a: jnp.stack([a, a * 0.5]), params)
    return jax.vmap(lambda params: native(params, x)[1])(several)


def of_shards(params, x):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))
    run = lambda x: native(params, x)[1]
    return jax.shard_map(run, mesh=mesh, in_specs=P("rows"), out_specs=P("rows"))(x)


def of_devices(params, x):
    run = jax.pmap(lambda x: native(params, x)[1])
    return run(x.reshape(2, -1, *x.shape[1:])).reshape(x.shape)


INSIDE = {f.__name__: f for f in (under_scan, of_rows, of_members, of_shards)}


@pytest.mark.parametrize("name", [*INSIDE, "of_devices"])
def test_inside_transforms_from_many_threads(name):
    params, x = lstm(6, 3, 4, 4)
    run = of_devices if name == "of_devices" else jax.jit(INSIDE[name])
    first = np.asarray(run(params, x))
    call = lambda _: np.testing.assert_array_equal(run(params, x), first)
    in_threads(call, CALLS // (50 if name == "of_devices" else 5))
    want = jaxseq.lstm(params, x, implementation="scan")[1]
    if name not in ("under_scan", "of_members"):
        np.testing.assert_allclose(first, want, 1e-5, 1e-6)


def test_a_library_for_another_interface_is_refused():
    here = interface.interface()
    assert here is not None
    made = lambda major, minor: SimpleNamespace(
        JaxseqInterface=lambda: 1000 * major + minor
    )
    for version in (here, (here[0], 0)):  # XLA takes what is older
        assert interface.refusal(made(*version)) is None
    for version in ((here[0], here[1] + 1), (here[0] + 1, here[1])):
        assert "was compiled for version" in (interface.refusal(made(*version)) or "")
    assert "does not say" in (interface.refusal(SimpleNamespace()) or "")


def test_a_library_that_is_refused_says_so(monkeypatch):
    message = "the library of native kernels was compiled for another"
    monkeypatch.setattr(build, "refusal", lambda library: message)
    monkeypatch.setattr(build, "limit", build.limit.__wrapped__)
    with pytest.raises(ValueError, match=message):
        jax.jit(native).lower(*lstm(2, 3, 4, 5))
