"""What the tests of the experiments share: commands as their users run them."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import fit

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def as_users_have_it():
    """The experiments run in JAX's own defaults; optax needs implicit promotion."""
    jax.config.update("jax_enable_x64", False)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_enable_x64", True)


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


def same_weights(one, other, settings, make_model):
    """That two runs ended at the same weights, to the last bit."""
    both = (weights_of(out, settings, make_model) for out in (one, other))
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)


def weights_of(out, settings, make_model):
    """The weights of the newest checkpoint in `out`."""
    model, _, _ = fit.load(out, settings, make_model)
    return [np.asarray(w) for w in jax.tree.leaves(nnx.state(model, nnx.Param))]


def went_on(capsys):
    """That a command went on with a run that was not at its end."""
    printed = capsys.readouterr().out
    step, steps = re.findall(r"Going on from step (\d+) of (\d+)\.", printed)[0]
    assert 0 < int(step) < int(steps)


def kill_at_first_checkpoint(module, out, *options):
    """Runs `python -m module train`, and kills it when a checkpoint is there."""
    command = [sys.executable, "-m", module, "train", "--out", out, *options]
    command += ["--save-seconds", 0.2]
    process = subprocess.Popen(
        [*map(str, command)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    done = []
    for _ in itertools.repeat(None, 12_000):
        done = [p for p in out.glob("**/checkpoints/[0-9]*") if p.name.isdigit()]
        if done or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert done
