"""Instructions of the native kernels that stand for several operations."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseq._kernels.cpu import code
from jaxseq._kernels.cpu.elements import OPS
from tests.test_native_ops import evaluated

pytestmark = pytest.mark.usefixtures("native_library")

SUMS = ["fma", "fnma", "mul", "fms", "mul"]
CASES = {  # functions of halves of a row, and the instructions of their programs
    "rest": (lambda a, b: a * (1 - b), ["rest"]),
    "rest, turned": (lambda a, b: (1 - b) * a, ["rest"]),
    "rest of itself": (lambda a, b: a * (1 - a), ["rest"]),
    "rests": (lambda a, b: a * (1 - a) * b, ["rests"]),
    "rests, turned": (lambda a, b: b * ((1 - a) * a), ["rests"]),
    "of a sum": (lambda a, b: a * (1 - b) + b, ["rest", "add"]),
    "read twice": (lambda a, b: (1 - b) * a - (1 - b), ["sub", "fms"]),
    "squared": (lambda a, b: (1 - a) * (1 - a), ["sub", "mul"]),
    "of 2": (lambda a, b: a * (2 - b), ["sub", "mul"]),
    "less 1": (lambda a, b: a * (b - 1), ["sub", "mul"]),
    "sums": (lambda a, b: (a * b + a) * (b - a * 3) * (b * 5 - a), SUMS),
}


@pytest.mark.parametrize("name", CASES)
def test_a_part_that_is_read_once_is_in_its_reader(name, monkeypatch):
    f, expected = CASES[name]
    made = []

    def run_of(*args, original=code.run_of):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr("jaxseq._kernels.cpu.runs.run_of", run_of)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 20))
    twice = lambda r: jnp.tile(f(r[:20], r[20:]), 2)
    found = evaluated({"y": twice}, jnp.asarray(np.concatenate([a, b], 1)))["y"]
    np.testing.assert_allclose(found[:, :20], f(a, b), rtol=1e-13, atol=1e-15)
    names = [OPS[c[0]] for run in made for c in run.code]
    assert [op for op in names if op != "copy"] == expected
