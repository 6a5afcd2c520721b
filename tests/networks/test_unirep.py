"""The states of UniRep are those of its own package."""

import jax
import numpy as np
import pytest

from tests.networks import unirep

B, T = 4, 60


@pytest.fixture(scope="module")
def models():
    return unirep.models()


@pytest.mark.parametrize("width", unirep.WIDTHS)
def test_the_states_are_its_own(models, width):
    arrays = unirep.arrays_of(width)
    tokens = np.random.default_rng(0).integers(1, 22, (B, T))
    model = models.model_from_arrays(arrays)
    h, c, want = jax.jit(jax.vmap(model))(jax.nn.one_hot(tokens, unirep.LETTERS))
    state, y = unirep.run(unirep.layers_of(arrays), arrays["embedding"][tokens])
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-5)
    np.testing.assert_allclose(state.h, h, rtol=0, atol=2e-5)
    np.testing.assert_allclose(state.c, c, rtol=1e-5, atol=2e-5)
