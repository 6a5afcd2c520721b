"""What each process reads of a batch: together all of it, and nothing twice."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.frame import distributed
from experiments.frame.data import Same, Share, part
from tests.experiments.helpers import arrays_alike

TRAINED = {
    "captions": {"batch": 8},
    "classification": {},
    "language_model": {"batch": 8, "window": 4},
    "memory": {"batch": 8, "length": 6},
    "speech": {"batch": 6, "strings": 4},
    "tagging": {},
    "translation": {},
}


@pytest.fixture(scope="module")
def data_of():
    """The data of each experiment, made once."""
    found = {}

    def of(name, **more):
        key = (name, *more.items())
        if key not in found:
            experiment = import_module(f"experiments.{name}.experiment").EXPERIMENT
            settings = replace(experiment.preset({}), **TRAINED[name], **more)
            found[key] = experiment.data.load(settings, None)
        return found[key]

    return of


def joined(parts):
    def join(*arrays):
        if isinstance(arrays[0], Same) or np.ndim(arrays[0]) == 0:
            return arrays[0]
        return np.concatenate(arrays)

    return jax.tree.map(join, *parts, is_leaf=lambda a: isinstance(a, Same))


@pytest.mark.every(3)
@pytest.mark.parametrize("processes, devices", [(2, 2), (4, 4), (2, 8)])
@pytest.mark.parametrize(
    "name, more",
    [*((name, {}) for name in TRAINED), ("memory", {"task": "copy"}),
     ("speech", {"augment": True})],
)  # fmt: skip
def test_shares_are_the_whole(data_of, name, more, processes, devices):
    train = data_of(name, **more).train
    shares = [Share(i, processes, devices) for i in range(processes)]
    for step in range(4):
        whole = part(train[step], Share(0, 1, devices))
        found = joined([train.part(step, share) for share in shares])
        arrays_alike(found, whole)


@pytest.mark.parametrize("name", TRAINED)
def test_shares_of_what_is_held_out(data_of, name):
    shares = [Share(i, 4, 8) for i in range(4)]
    for batch in data_of(name).held_out[:4]:
        found = joined([part(batch, share) for share in shares])
        arrays_alike(found, part(batch, Share(0, 1, 8)))
        for own, all_rows in zip(*map(jax.tree.leaves, (found, batch)), strict=True):
            n = len(np.atleast_1d(all_rows))
            np.testing.assert_array_equal(np.atleast_1d(own)[:n], all_rows)
            assert not np.atleast_1d(own)[n:].any()


def test_devices_of_a_process_lie_side_by_side(monkeypatch):
    """On a TPU their numbers alternate between the processes."""
    both = [SimpleNamespace(id=i, process_index=i // 2 % 2) for i in range(8)]
    monkeypatch.setattr(distributed, "Mesh", lambda devices, names: list(devices))
    monkeypatch.setattr(jax, "devices", lambda: both)
    found = distributed.mesh.__wrapped__()
    assert [d.id for d in found] == [0, 1, 4, 5, 2, 3, 6, 7]
