"""What a decoder attends to."""

from typing import Any, NamedTuple

from jax import Array


class Memory(NamedTuple):
    """Outputs of an encoder, which a decoder attends to.

    Fields:
        values: the outputs, `(..., S, C)`, zeros where not valid.
        keys: the part of a recurrent model's score that no query enters.
        valid: booleans `(..., S)`; all are valid if None.
    """

    values: Array
    keys: Any = None
    valid: Array | None = None
