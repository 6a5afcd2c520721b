"""The native kernels on several threads, also with few rows, when columns are split."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxseq
from examples.cells.multiplicative_lstm import MULTIPLICATIVE_LSTM
from jaxseq._kernels.cpu import build
from tests.cells import assert_close
from tests.native.problems import cell_run, normal, random_weights
from tests.native.python import python

pytestmark = pytest.mark.usefixtures("native_library")

# steps of more than ten microseconds, whose columns are split where B is small, of odd
# widths; others with as many rows that are not
FEW = [(1, 5, 7, 251), (3, 4, 6, 203), (5, 2, 3, 160)]
OTHERS = [(2, 5, 3, 9), (7, 3, 5, 33), (9, 3, 70, 203), (1, 1, 33, 251), (40, 2, 9, 17)]


def lstm(shape, **options):
    B, T, D, H = shape
    params = random_weights(jaxseq.lstm_init, D, H)
    return _run(jaxseq.lstm, params, normal(1, B, T, D), options)


def product_of_product(shape):
    """A cell whose second product needs all columns of what the first one gives."""
    B, T, D, H = shape
    cell = MULTIPLICATIVE_LSTM
    params = random_weights(cell.init, D, H)
    return _run(cell_run(cell, B), params, normal(1, B, T, D), {})


def _run(f, params, x, options):
    """A function of the implementation's name."""

    @cache
    def compiled(name):
        return jax.jit(lambda *args: f(*args, **options, implementation=name))

    return lambda name: jax.tree.leaves(compiled(name)(params, x))


def check(run):
    assert_close(run("native"), run("scan"))


@pytest.mark.every(3)
@pytest.mark.parametrize("shape", FEW + OTHERS)
def test_rows(shape):
    check(lstm(shape))


@pytest.mark.parametrize("shape", FEW)
def test_a_product_of_a_product(shape):
    check(product_of_product(shape))


@pytest.mark.parametrize("names", ["lengths", "mask resets"])
def test_masks(names):
    rng = np.random.default_rng(5)
    every = {
        "lengths": jnp.asarray([0, 4, 2]),
        "mask": jnp.asarray(rng.random((3, 4)) < 0.6),
        "resets": jnp.asarray(rng.random((3, 4)) < 0.4),
    }
    check(lstm((3, 4, 6, 203), **{name: every[name] for name in names.split()}))


@cache
def digest() -> str:
    """Of results on as many threads as the pool of this process has."""
    found = sha256()
    for make, shape in (
        (lstm, FEW[0]),
        (lstm, FEW[1]),
        (product_of_product, FEW[2]),
        (lstm, OTHERS[2]),
    ):
        for a in make(shape)("native"):
            found.update(np.asarray(a).tobytes())
    return found.hexdigest()


@pytest.mark.every(2)
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_numbers_of_threads(threads):
    """Each element is summed in one order, on however many threads."""
    code = "from tests import test_native_threads as t; print(t.digest())"
    ran = python("-c", f"import tests.conftest; {code}", NPROC=str(threads))
    assert ran.stdout.split()[-1] == digest()


def test_calls_at_once():
    """From more threads than the pool has, all of whose pieces others may claim."""
    runs = [lstm(FEW[0]), product_of_product(FEW[1]), lstm((40, 3, 20, 64))]
    expected = [[np.asarray(a) for a in run("native")] for run in runs]

    def call(i):
        same = zip(expected[i % 3], runs[i % 3]("native"), strict=True)
        return all(np.array_equal(a, b) for a, b in same)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(48)))


@pytest.mark.parametrize("masked", [False, True])
def test_in_a_shard_map(masked):
    """Each device runs its own rows; nothing else is asked of the batch."""
    params = random_weights(jaxseq.lstm_init, 3, 9)
    x = normal(1, 6, 4, 3)
    lengths = jnp.asarray([4, 2, 0, 1, 3, 4])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def run(name):
        def one(params, x, lengths):
            some = lengths if masked else None
            return jaxseq.lstm(params, x, lengths=some, implementation=name)

        data = PartitionSpec("data")
        specs = {"in_specs": (PartitionSpec(), data, data), "out_specs": data}
        split = jax.jit(jax.shard_map(one, mesh=mesh, **specs))
        return jax.tree.leaves(split(params, x, lengths))

    assert_close(run("native"), run("scan"))


def test_environments():
    """A mapped axis behind time is one of rows: one call for all of them."""
    params = random_weights(jaxseq.gru_init, 3, 9)
    x, resets = normal(1, 4, 6, 3), normal(2, 4, 6) > 0.5

    def run(name):
        one = lambda x, resets: jaxseq.gru(
            params, x[None], resets=resets[None], implementation=name
        )
        return jax.jit(jax.vmap(one, in_axes=1))

    text = run("native").lower(x, resets).as_text()
    assert text.count(f"@{build.TARGET}") == 1 and "while" not in text
    assert_close(*(run(name)(x, resets) for name in ("native", "scan")))
