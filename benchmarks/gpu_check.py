"""`python -m benchmarks check-gpu`: all that needs an NVIDIA GPU, in nine minutes.

jaxseq against float64, then the table, then the library's tests with the GPU as
JAX's device. Each part is a process with a time limit, so one that fails, dies or
hangs costs the others nothing, and what it had measured is kept.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import TINY

ROOT = Path(__file__).parent.parent
PLATFORM = "JAXSEQ_TEST_PLATFORM"
TESTS = ("test_cells", "test_transforms", "test_dtypes", "test_layers")


class Part(NamedTuple):
    name: str
    seconds: float
    command: list[str]
    env: dict[str, str]


def parts(results: Path, dry: bool) -> Iterator[Part]:
    run = [sys.executable, "-m", "benchmarks", "run", "--max-load", "1000"]
    run += ["--no-compile-times", "--device", "cpu" if dry else "gpu"]
    two = "jaxseq,jaxseq scan"
    exact = ["--cases", "tiny" if dry else "exact", "--rounds", "0"]
    exact += ["--modes", "gradient", "--contenders", two]
    few = ["--shapes", ",".join(map(str, TINY))] if dry else []
    yield Part(
        "exact", 100, [*run, *exact, *few, "--results", str(results / "exact")], {}
    )
    table = ["--cases", "tiny" if dry else "accelerator"]
    table += ["--modes", "forward" if dry else "forward,gradient"]
    table += ["--results", str(results)]
    if dry:
        table += [*few, "--contenders", f"{two},flax,cudnn,torch"]
    # PyTorch needs the other half of the memory
    half = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    yield Part("table", 300, [*run, *table], half)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu_check"]
    tests += ["-p", "no:cacheprovider", "-W", "default", "--tb", "line"]
    tests += [f"tests/{name}.py" for name in TESTS[: 1 if dry else None]]
    only = "test_one_sequence and lstm and" if dry else ""
    tests += ["-k", f"{only} not (shard or mesh)"]  # these need two devices
    if find_spec("xdist") and not dry:
        tests += ["-n", "6", "--dist", "worksteal"]
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # with no flags of XLA, tests/conftest.py leaves every platform its own path
    env |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_FLAGS": ""}
    env[PLATFORM] = "cpu" if dry else "cuda,cpu"
    yield Part("tests", 120, tests, env)


def check(results: Path, dry: bool) -> int:
    """Returns how many parts did not end well."""
    results = results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    log = results / "check-gpu.log"
    print(f"rows in {results}, output in {log}")
    failed = 0
    for part in parts(results, dry):
        seconds = 4 * part.seconds if dry else part.seconds  # of few cores
        print(f"{part.name}, at most {seconds:.0f} s", flush=True)
        start = time.monotonic()
        ended = run_part(part, seconds, log, dry)
        print(f"{part.name}: {ended} after {time.monotonic() - start:.0f} s")
        failed += ended != "done"
    return failed


def run_part(part: Part, seconds: float, log: Path, dry: bool) -> str:
    """Runs a part to its end or its limit; returns how it ended."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **part.env}
    if dry:
        env["JAX_PLATFORMS"] = "cpu"
    with log.open("a") as file:
        file.write(f"\n=== {part.name}\n")
        file.flush()
        # a session of its own, so that its children end with it
        child: Any = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(seconds)
            return "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {seconds:.0f} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(5)  # one that waits for a wedged GPU may not end


def pytest_sessionstart() -> None:
    """As a plugin of pytest: the GPU, after tests/conftest.py has set the CPU."""
    import jax

    jax.config.update("jax_platforms", os.environ[PLATFORM])
