"""The data of a run, and how they are known again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Data(NamedTuple):
    """What a run is trained and tested on."""

    train: Any  # batches by their number: `train[step]` is any of them
    held_out: Sequence[Any]  # batches
    tests: dict[str, Any]  # what there is to test on, by name
    digests: dict[str, str]  # of "all", and of each test
    about: str  # their sizes, in a line
    per_step: int  # how many are seen in a step, of:
    unit: str = "example"
    facts: Mapping[str, Any] = {}  # what the model's shape depends on, as JSON


def digest(data: Any) -> str:
    """By which data are known again; arrays by their bytes."""
    of_bytes = lambda array: hashlib.sha256(array.tobytes()).hexdigest()
    text = json.dumps(data, default=of_bytes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
