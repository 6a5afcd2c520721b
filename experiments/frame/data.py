"""The data of a run, and how they are known again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Share(NamedTuple):
    """Which rows of a batch a process has: as many as each other process."""

    process: int
    processes: int
    devices: int  # of all processes, each of which has as many rows as the others

    def filled(self, rows: int) -> int:
        """The rows of a batch with those that only fill it."""
        return -(-rows // self.devices) * self.devices

    def of(self, rows: int) -> slice:
        each = self.filled(rows) // self.processes
        return slice(self.process * each, (self.process + 1) * each)


WHOLE = Share(0, 1, 1)


class Same(NamedTuple):
    """A part of a batch that has no rows: every process has the same of it."""

    value: Any


class Data(NamedTuple):
    """What a run is trained and tested on."""

    # batches by their number: `train[step]` is any of them. With `train.part(step,
    # share)` the rows of a process are read alone; else the others are dropped.
    train: Any
    held_out: Sequence[Any]  # batches
    tests: dict[str, Any]  # what there is to test on, by name
    digests: dict[str, str]  # of "all", and of each test
    about: str  # their sizes, in a line
    per_step: int  # how many are seen in a step, of:
    unit: str = "example"
    facts: Mapping[str, Any] = {}  # what the model's shape depends on, as JSON
    fills: bool = True  # rows of zeros add nothing to the loss of a batch


def digest(data: Any) -> str:
    """By which data are known again; arrays by their bytes."""
    of_bytes = lambda array: hashlib.sha256(array.tobytes()).hexdigest()
    text = json.dumps(data, default=of_bytes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def part(batch: Any, share: Share) -> Any:
    """The rows of a process; rows of zeros fill the batch."""

    def cut(a: Any) -> Any:
        if isinstance(a, Same) or np.ndim(a) == 0:
            return a
        n = share.filled(len(a)) - len(a)
        a = np.pad(a, [(0, n)] + [(0, 0)] * (np.ndim(a) - 1)) if n else a
        return a[share.of(len(a))]

    return jax.tree.map(cut, batch, is_leaf=lambda a: isinstance(a, Same))
