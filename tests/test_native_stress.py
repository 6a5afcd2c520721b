"""Calls of the native kernels from eight threads at once, in a process of its own."""

import os
import subprocess
import sys

import pytest

from tests.native import LONG, stress

pytestmark = pytest.mark.usefixtures("native_library")


def run(calls, threads, *names):
    """Threads of the pool of XLA; a call that never returns ends the process."""
    command = [sys.executable, "-m", "tests.native.stress", f"--calls={calls}", *names]
    environment = {**os.environ, "NPROC": str(threads)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise AssertionError(ran.stdout + ran.stderr)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("threads", [2, 1, 8] if LONG else [2])
def test_calls_at_once(threads):
    """All return, all are equal, and no memory is lost."""
    assert len(run(10_000 if LONG else 80, threads)) == len(stress.CASES) + 1


def test_it_notices_what_is_wrong():
    with pytest.raises(AssertionError, match="other bits"):
        turn = iter(range(100))
        stress.stressed(stress.compared(lambda: [float(next(turn))]), 8, 2)
    kept = []
    with pytest.raises(AssertionError, match="grows by"):
        many = stress.MOST_BYTES // 4 + 1
        stress.stressed(lambda: kept.append(b"1" * many), 8, 2)
    with pytest.raises(AssertionError, match="stress: no"):
        run(1, 1, "nothing")
