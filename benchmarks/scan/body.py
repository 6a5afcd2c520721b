"""A body of a scan with its weights, its first state and its inputs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Body(NamedTuple):
    """A body, and jaxseq's own function of the same equations if it has one."""

    make: Callable[[Any], Any]  # weights -> body of `lax.scan`
    weights: Any
    state: Any
    own: tuple[str, Callable[..., Any]] | None = None  # (weights, state, xs) -> same
    resets: bool = False  # whether its input is (x_t, resets)


class Random(NamedTuple):
    """Weights and states, the same numbers in every precision."""

    generator: np.random.Generator
    dtype: Any

    def normal(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.generator.standard_normal(shape), self.dtype)

    def uniform(self, *shape: int, size: int) -> jax.Array:
        """Of this scale a recurrence contracts, so rounding does not grow with T."""
        k = 1 / math.sqrt(size)
        return jnp.asarray(self.generator.uniform(-k, k, shape), self.dtype)

    def like(self, tree: Any, size: int) -> Any:
        """Weights of a library's cell drawn anew, so that no bias is zero."""
        return jax.tree.map(lambda a: self.uniform(*a.shape, size=size), tree)
