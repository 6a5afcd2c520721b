"""The error of a command's user, as against that of its author."""

from collections.abc import Iterable, Mapping
from typing import Any


class InputError(Exception):
    """Something the user can mend: shown as one line, with exit code 2."""


class Diverged(InputError):
    """A loss or weights that are no longer finite."""


def refuse(given: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Raises if one of the options is given where it would change nothing."""
    for name in names:
        if given.get(name) is not None:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: changes nothing {where}")
