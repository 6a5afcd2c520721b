"""Tokens out of range that only a run under `jit` knows: NaN, whatever reads them."""

import jax
import numpy as np
import pytest

from jaxseq._base.mesh import rows
from tests.calls import CALLS, V
from tests.cells import assert_close

# which of the arguments are tokens
READERS = {
    "seq2seq_encode": 1,
    "seq2seq_decode": 2,
    "seq2seq_decode fed": 2,
    "seq2seq_decode_step": 2,
    "transformer_encode": 1,
    "transformer_decode alone": 1,
    "transformer_decode_step": 2,
}
WRONG = [-1, -V, -100, V, 2**31 - 1]


@pytest.fixture(autouse=True, scope="module")
def float32():
    """As most users have it."""
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("name", READERS)
def test_embeddings(name):
    """NaN in the sequence that has the token, and nothing else in the other."""
    args, at = [*CALLS[name].args(2, 3)], READERS[name]
    run, tokens = jax.jit(CALLS[name].run), args[at]
    expected = jax.tree.leaves(run(*args))
    for wrong in WRONG:
        args[at] = tokens.copy()
        args[at][(0,) * tokens.ndim] = wrong
        found = jax.tree.leaves(run(*args))
        assert any(np.isnan(a[0]).any() for a in found if a.dtype == np.float32)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a[1], b[1])


def test_no_gradient_goes_to_an_embedding():
    table = np.random.default_rng(0).standard_normal((V, 3), np.float32)
    at = np.array([[0, *WRONG], [V - 1, 1, 1, *[0] * (len(WRONG) - 2)]])
    inside = (at >= 0) & (at < V)
    run = jax.jit(jax.value_and_grad(lambda table: rows(table, at).sum()))
    found = jax.jit(rows)(table, at)
    assert np.isnan(found[~inside]).all()
    np.testing.assert_array_equal(found[inside], table[at[inside]])
    counts = np.bincount(at[inside], minlength=V)
    assert_close(run(table)[1], np.repeat(counts[:, None], 3, 1).astype(np.float32))
