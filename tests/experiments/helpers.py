"""Commands as their users run them, and runs that are stopped."""

import os
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.frame.checkpoint import Checkpoints
from experiments.frame.trainer import Trainer

ROOT = Path(__file__).parents[2]
DATA = "JAXSEQ_TEST_DATA"  # names a folder of the real data sets
REAL = Path(os.environ.get(DATA, ""))
real = pytest.mark.skipif(DATA not in os.environ, reason=f"{DATA} is not set")


def error(capsys, code):
    """The one line that a command told its user."""
    assert code == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "error" in line]
    assert len(lines) == 1 and "Traceback" not in printed.err
    return lines[0]


def refused(capsys, main, *options):
    """The line that a command tells of options that it cannot take."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, options)])
    return error(capsys, stopped.value.code)


@contextmanager
def before_step(step, act):
    """Calls `act()` when so many steps are done, before the next."""

    def advance(self):
        if self.step == step:
            act()
        return plain(self)

    plain = Trainer.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "advance", advance)
        yield


def interrupt():
    raise KeyboardInterrupt


def resumes(main, whole, cut, *options, at=3):
    """That a run stopped after `at` steps ends as the finished one in `whole`.

    The options are those that `whole` was trained with.
    """
    command = ["train", "--out", str(cut), *map(str, options)]
    with before_step(at, interrupt):
        assert main([*command, "--save-seconds", "0"]) == 130
    assert Checkpoints(cut, read_only=True).facts()["step"] == at
    assert main([*command, "--resume"]) == 0
    same_runs(whole, cut)


def same_runs(one, other):
    """That two runs have the same weights to the last bit, losses and results."""
    both = [Checkpoints(run, read_only=True) for run in (one, other)]
    weights, others = (arrays_of(checkpoints) for checkpoints in both)
    assert len(weights) == len(others) > 0
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_array_equal(a, b)
    facts, others = (checkpoints.facts() for checkpoints in both)
    for name in ("step", "train", "held_out", "digest", "settings"):
        assert facts[name] == others[name]
    results = [{p.name: p.read_text() for p in run.glob("result-*.json")}
               for run in (one, other)]  # fmt: skip
    assert results[0] == results[1] != {}


def arrays_of(checkpoints):
    """All arrays of the newest checkpoint: weights, optimizer, carry."""
    folder = checkpoints.run / "checkpoints" / str(checkpoints.newest)
    names = [p.name for p in folder.iterdir() if p.name in ("arrays", "carry")]
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    args = {n: ocp.args.StandardRestore(fallback_sharding=here) for n in names}
    restored = checkpoints.manager.restore(
        checkpoints.newest, args=ocp.args.Composite(**args)
    )
    return [np.asarray(a) for a in jax.tree.leaves([restored[n] for n in names])]


def arrays_alike(one, other):
    """That two trees have the same arrays, to the last bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
