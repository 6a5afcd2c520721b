"""Pointwise functions of JAX by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

NAMES = (
    "celu elu gelu hard_sigmoid hard_silu hard_tanh identity leaky_relu log_sigmoid"
    " mish relu relu6 selu sigmoid silu softplus sparse_plus sparse_sigmoid squareplus"
)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(jax.nn, name) for name in NAMES.split()},
    "softsign": jax.nn.soft_sign,
    "tanh": jnp.tanh,
}


def name_of(f: Any) -> str | None:
    """The name of one of them, None of others."""
    return next((name for name, own in FUNCTIONS.items() if own is f), None)
