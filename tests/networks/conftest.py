"""The networks are float32, and run in JAX's own defaults."""

from tests.experiments.conftest import as_users_have_it as as_users_have_it
