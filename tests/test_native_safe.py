"""The native kernels given wrong programs, shapes, dtypes, and numbers of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._kernels.cpu import build
from tests.native import LONG
from tests.native.cases import cases

pytestmark = pytest.mark.usefixtures("native_library")


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


NAMES = "lstm-0-0 gru-3-1 reset-0 peephole-1 norm-1".split()


@pytest.fixture(scope="module")
def calls():
    """The last run of each of these: that of the backward pass, if there is one."""
    return {name: [c for c in cases()[name]() if not c.said][-1] for name in NAMES}


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


@pytest.mark.parametrize(
    "shape", [(2**40, 2, 0), (2**31, 2**28, 0), (2**40, 0, 2**19), (0, 2**40, 2**19)]
)
def test_huge_shapes(shape, calls):
    """Of arrays with no elements; harness.cc has others, that NumPy cannot have."""
    for name in NAMES:
        args = list(calls[name].arguments)
        args[3] = np.zeros(shape, args[3].dtype)
        with pytest.raises(Exception, match="INVALID_ARGUMENT: jaxseq"):
            jax.block_until_ready(call_again(calls[name])(*args))


@pytest.mark.parametrize(
    "members, own", [(0, "111"), (-1, "000000"), (2, "000111"), (3, "0001"), (3, "")]
)
def test_wrong_members(members, own, calls):
    """Of arrays without any; for none of them there is memory."""
    call = calls["gru-3-1"]
    like = [jax.ShapeDtypeStruct((3, *a.shape), a.dtype) for a in call.results]
    run = jax.ffi.ffi_call(build.MEMBERS, like)
    with pytest.raises(Exception, match="INVALID_ARGUMENT: jaxseq"):
        jax.block_until_ready(run(*call.arguments, members=members, own=own))


def test_matrices_in_many_blocks():
    """More than a call has room for: by the loop, unless the engine is asked for."""
    params = jaxseq.CellParams(None, jnp.ones((300, 1, 1)), None)
    update = lambda z_x, h, w_h, extra: jnp.tanh(z_x + w_h(h))
    run = lambda **how: jaxseq.cell(
        update, params, jnp.ones((2, 3, 300)), zeros=300, **how
    )
    h, _ = run()
    np.testing.assert_allclose(h, run(implementation="scan")[0], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"implementation: .*300 blocks"):
        run(implementation="native")


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
