"""`python -m benchmarks.gpu.task MODULE FILE SECONDS [--dry-run] [ARGUMENT ...]`.

Runs `main(Task, *arguments)` of a module of this package in this process, which may
hang or die; the caller watches it.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.lines import Lines, error_text


class Task(NamedTuple):
    """What a module's `main` is given."""

    lines: Lines
    dry: bool  # tiny shapes on the CPU
    deadline: float  # of time.monotonic()

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def device(self) -> Any:
        """The device to measure on, or None after a line that says there is none."""
        import jax

        if self.dry:
            return jax.devices("cpu")[0]
        try:
            return jax.devices("gpu")[0]
        except RuntimeError as error:
            self.lines.write(error="no GPU", detail=error_text(error))
            return None


def main(argv: list[str]) -> int:
    name, path, seconds, *rest = argv
    start = time.monotonic()
    arguments = [a for a in rest if a != "--dry-run"]
    lines = Lines(Path(path), stage=name)
    task = Task(lines, "--dry-run" in rest, start + float(seconds))
    try:
        importlib.import_module(f"benchmarks.gpu.{name}").main(task, *arguments)
    except Exception as error:
        lines.write(task=" ".join([name, *arguments]), error=error_text(error))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
