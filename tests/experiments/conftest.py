"""What holds for all tests of the experiments."""

import jax
import pytest

from experiments.frame import page


@pytest.fixture(autouse=True, scope="module")
def as_users_have_it():
    """The experiments run in JAX's own defaults; optax needs implicit promotion."""
    jax.config.update("jax_enable_x64", False)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def coarse_figures():
    """Figures of few pixels, which are drawn sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "DPI", 40)
        yield
