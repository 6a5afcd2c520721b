"""The numbers from 0 on, which the kernel is given as if they were weights."""

from typing import Any

import jax.numpy as jnp

from jaxseq._kernels.cpu.columns import Key

COUNTS = 1 << 20  # ("extra", COUNTS + n) has the numbers from 0 to n - 1


def counts_of(columns: dict[Key, Any]) -> list[Key]:
    """The keys of those that a program reads."""
    return sorted(key for key in columns if key[0] == "extra" and key[1] > COUNTS)


def values_of(number: int, extra: Any, dtype: Any) -> Any:
    """What the kernel is given for `("extra", number)`."""
    if number > COUNTS:
        return jnp.arange(number - COUNTS, dtype=dtype)
    return extra[number].ravel()
