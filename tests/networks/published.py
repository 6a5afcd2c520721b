"""Published networks, as `make .venv/networks` has fetched them."""

import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest

FOLDER = Path(sys.prefix) / "networks"


def path(name):
    """A file of a package."""
    if not (FOLDER / name).exists():
        pytest.skip(f"{FOLDER / name} is not there: make .venv/networks fetches it")
    return FOLDER / name


@contextmanager
def quietly():
    """Their code leaves files open, and is of other years."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def imported(module, **others):
    """A module of a package, which is given `others` in place of what it asks for."""
    path(module.partition(".")[0])
    with (
        patch.dict(sys.modules, others),
        patch.object(sys, "path", [str(FOLDER), *sys.path]),
        quietly(),
    ):
        return import_module(module)
