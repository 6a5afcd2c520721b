"""How many keys scopes have drawn, which Flax folds into the next one."""

from typing import Any


def copied(counts: dict[Any, Any]) -> dict[Any, Any]:
    """Counts of a scope and of those below it."""
    return {k: copied(v) if isinstance(v, dict) else v for k, v in counts.items()}


def put_back(counts: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Sets the counts to those before, 0 of what was not there."""
    for k, v in counts.items():
        if isinstance(v, dict):
            put_back(v, before.get(k, {}))
        else:
            counts[k] = before.get(k, 0)
