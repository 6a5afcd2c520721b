"""The native kernels under a `vmap` of weights: an ensemble's members in one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from jaxseq._kernels.cpu import build, limits
from tests.cells import assert_close
from tests.native.problems import normal, random_weights
from tests.native.python import python

pytestmark = pytest.mark.usefixtures("native_library")

B, T, D, H = 3, 4, 5, 9


@pytest.fixture(autouse=True, scope="module")
def few():
    """Gradients of few rows are by the kernels too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "FEW", 0)
        jax.clear_caches()
        yield
    jax.clear_caches()


def ensemble(*lead, op="lstm"):
    params = random_weights(getattr(jaxseq, f"{op}_init"), D, H)
    return jax.tree.map(lambda a: a + normal(7, *lead, *a.shape) / 9, params)


def gradients(op, name):
    """Values and gradients of one member."""

    def loss(params, x, more):
        _, y = out = getattr(jaxseq, op)(params, x, **more, implementation=name)
        return jnp.sin(y).sum(), out

    return jax.grad(loss, (0, 1), has_aux=True)


def masks(*lead):
    lengths = np.random.default_rng(2).integers(0, T + 1, (*lead, B))
    return {"lengths": jnp.asarray(lengths), "resets": normal(4, *lead, B, T) > 0.5}


def both(axes, *args, op="lstm", calls=2):
    """By the native kernel and by the plain scan, mapped over some axes in turn."""

    def run(name):
        one = gradients(op, name)
        for each in axes:
            one = jax.vmap(one, each)
        return jax.jit(one)

    text = run("native").lower(*args).as_text()
    assert text.count(f"@{build.MEMBERS}") == calls  # and never one after the other
    assert f"@{build.TARGET}" not in text
    # those of matrices as well, and of inputs; a gru has two sums
    assert text.count(f"@{build.GRADIENTS}") == (3 if op == "gru" else 2)
    assert_close(run("native")(*args), run("scan")(*args))


@pytest.mark.every(4)
@pytest.mark.parametrize("op", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("M", [1, 2, 5])
def test_members(M, op):
    both([(0, 0, 0)], ensemble(M, op=op), normal(1, M, B, T, D), masks(M), op=op)


def test_of_the_same_input():
    both([(0, None, None)], ensemble(5), normal(1, B, T, D), masks())


def test_of_some_weights():
    params = ensemble()
    w_h = params.w_h + normal(8, 5, *params.w_h.shape) / 9
    axes = jax.tree.map(lambda _: None, params)._replace(w_h=0)
    both([(axes, 0, None)], params._replace(w_h=w_h), normal(1, 5, B, T, D), masks())


@pytest.mark.every(2)
@pytest.mark.parametrize(
    "axes, lead",
    [
        ([(0, None, None), (0, None, None)], ((2, 3), (), ())),
        ([(0, 0, None), (None, 0, 0)], ((3,), (2, 3), (2,))),
        ([(0, None, None), (None, 0, 0)], ((3,), (2,), (2,))),
        ([(None, 0, 0), (0, None, None)], ((3,), (2,), (2,))),
        ([(0, 0, 0), (0, 0, 0), (None, 0, None)], ((3, 2), (2, 3, 2), (3, 2))),
    ],
)
def test_nested(axes, lead):
    params, x, more = lead
    both(axes, ensemble(*params), normal(1, *x, B, T, D), masks(*more))


def test_an_axis_that_is_not_the_first():
    x = normal(1, B, 5, T, D)
    both([(0, 1, None)], ensemble(5), x, masks())


def test_no_members():
    run = jax.vmap(lambda p, x: jaxseq.lstm(p, x, implementation="native")[1])
    assert run(ensemble(0), normal(1, 0, B, T, D)).shape == (0, B, T, H)


def bits(M):
    """Of an ensemble, and of each of its members by itself."""
    run = jax.jit(lambda p, x: jaxseq.gru(p, x, implementation="native")[1])
    params, x = ensemble(M, op="gru"), normal(1, M, B, T, D)
    member = lambda i: jax.tree.map(lambda a: a[i], (params, x))
    alone = np.stack([run(*member(i)) for i in range(M)])
    return np.asarray(jax.vmap(run)(params, x)), alone


@pytest.mark.parametrize("threads", [1, 3])
def test_on_threads(threads):
    """Each by one thread, or by all of them, as there are: the same bits."""
    code = (
        "import tests.conftest, numpy; from tests.test_native_members import bits; "
        "assert all(numpy.array_equal(*bits(M)) for M in (1, 7))"
    )
    python("-c", code, NPROC=str(threads))  # of the pool of XLA


def called(monkeypatch, name, change):
    """The error of a call of members that has been changed."""
    real = jax.ffi.ffi_call

    def ffi_call(target, results, **options):
        run = real(target, results, **options)

        def call(*args, **attributes):
            # not what is traced before it is mapped
            if target == name and attributes.get("own", "").strip("0"):
                attributes |= change(attributes)
            return run(*args, **attributes)

        return call

    monkeypatch.setattr(jax.ffi, "ffi_call", ffi_call)
    run = jax.jit(jax.vmap(gradients("rnn", "native"), (0, 0, None)))
    with pytest.raises(Exception, match="INVALID_ARGUMENT: jaxseq") as error:
        jax.block_until_ready(run(ensemble(2, op="rnn"), normal(1, 2, B, T, D), {}))
    return str(error.value)


@pytest.mark.parametrize("name", [build.MEMBERS, build.GRADIENTS])
@pytest.mark.parametrize(
    "change, text",
    [
        (lambda a: {"members": 3}, "another number of members"),
        (lambda a: {"members": -1}, "jaxseq"),
        (lambda a: {"own": a["own"][1:]}, "differ in number"),
        (lambda a: {"own": "0" * len(a["own"])}, "jaxseq"),
        (lambda a: {"own": "1" * len(a["own"])}, "jaxseq"),
    ],
)
def test_what_does_not_fit_is_an_error(name, change, text, monkeypatch):
    assert text in called(monkeypatch, name, change)


def test_each_with_a_program_of_its_own_is_an_error(monkeypatch):
    change = lambda a: {"own": "1" * len(a["own"])}
    assert "a program of its own" in called(monkeypatch, build.MEMBERS, change)
