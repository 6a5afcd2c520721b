"""What a decoder attends to."""

from typing import Any, NamedTuple

from jax import Array


class Memory(NamedTuple):
    """Outputs of an encoder, which a decoder attends to."""

    values: Array  # (..., S, C), zeros where not valid
    keys: Any = None  # the part of a recurrent model's score that no query enters
    valid: Array | None = None  # (..., S), booleans; all are valid if None
