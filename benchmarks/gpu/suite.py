"""The tests of the library with the GPU as JAX's device.

As a pytest plugin it sets the platform after tests/conftest.py, which sets the CPU,
and writes a line for each failure and for how far the tests are.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.lines import Lines
from benchmarks.gpu.task import Task

ROOT = Path(__file__).parent.parent.parent
FILES = ("test_cells", "test_transforms", "test_dtypes", "test_layers")
NEED_TWO_DEVICES = "shard or mesh"
WORKERS = 6
PLATFORM, PATH = "JAXSEQ_SUITE_PLATFORM", "JAXSEQ_SUITE_LINES"
counts: dict[str, int] = {}


def main(task: Task) -> None:
    if task.device() is None:
        return
    files = [f"tests/{name}.py" for name in FILES[: 1 if task.dry else None]]
    select = f"not ({NEED_TWO_DEVICES})" + (
        " and test_one_sequence and lstm" if task.dry else ""
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.suite"]
    command += [
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "-W",
        "default",
        "-k",
        select,
        *files,
    ]
    if importlib.util.find_spec("xdist") and not task.dry:
        command += ["-n", str(WORKERS), "--dist", "worksteal"]
    platform = "cpu" if task.dry else "cuda,cpu"
    env = {**os.environ, PLATFORM: platform, PATH: str(task.lines.path)}
    done = subprocess.run(command, cwd=ROOT, env=env)
    task.lines.write(tests="ended", exit_code=done.returncode)


def pytest_sessionstart() -> None:
    import jax

    jax.config.update("jax_platforms", os.environ[PLATFORM])


def pytest_runtest_logreport(report: Any) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the process that started it reports
    if report.when != "call" and not report.failed:
        return
    counts[report.outcome] = counts.get(report.outcome, 0) + 1
    lines = Lines(Path(os.environ[PATH]), stage="suite")
    if report.failed:
        text = " ".join(str(report.longrepr).split())[-400:]
        lines.write(test=report.nodeid, error=text)
    if sum(counts.values()) % 20 == 0:
        lines.write(tests="so far", **counts)


def pytest_sessionfinish() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        lines = Lines(Path(os.environ[PATH]), stage="suite")
        lines.write(tests="all", **counts)
