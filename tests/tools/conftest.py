"""Settings of the tests of tools."""

import jax
import pytest


@pytest.fixture
def as_users_have_it():
    """JAX's own defaults, under which libraries are timed."""
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # of every thread
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", cache)
