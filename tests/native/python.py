"""Python in a process of its own."""

import os
import subprocess
import sys


def python(*command: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `python *command` with more environment variables; it has to end with 0."""
    ran = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran
