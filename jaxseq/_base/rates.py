"""Probabilities of dropping, one for all leaves of a tree or a tree of them."""

from typing import Any

import jax
import jax.core

from jaxseq._base.check import check
from jaxseq._base.dropout import check_rate, is_zero


def rates_of(rate: Any, like: Any, name: str) -> tuple[Any, ...]:
    """A rate for each leaf of `like`; a float where it is known."""
    leaves, tree = jax.tree.flatten(like)
    if not isinstance(rate, (tuple, list, dict)):
        one = known_rate(rate, name)
        return (one,) * len(leaves)
    try:
        rates = tree.flatten_up_to(rate)
    except (ValueError, TypeError) as error:
        expected = f"a probability, or a tree of them like {tree}"
        raise ValueError(f"{name}: expected {expected}, got {rate}") from error
    return tuple(known_rate(one, name) for one in rates)


def known_rate(rate: Any, name: str) -> Any:
    """A rate that is checked, as a float if it is known."""
    check_rate(rate, name)
    return rate if isinstance(rate, jax.core.Tracer) else float(rate)


def check_rate_key(rates: tuple[Any, ...], key: Any, name: str) -> None:
    """Checks that there is a key if a rate may be other than 0."""
    need = any(not is_zero(rate) for rate in rates)
    check(key is not None or not need, "key", f"a random key for {name}", None)
