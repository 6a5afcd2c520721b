"""`python -m benchmarks.gpu`: all checks and measurements, each in its own process.

A task that fails, dies or hangs is a line in its file and costs the others nothing.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.lines import Lines
from benchmarks.gpu.sketch import NAMES as SKETCHES
from benchmarks.gpu.summary import summary
from benchmarks.gpu.sync import NAMES as SYNCS

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
SECONDS = 520
DRY_SLOWER = 3  # for a machine of few cores, and one that is not idle
WHILE = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer=+WHILE"}
HALF = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}  # PyTorch needs the other half
SMALL = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}


class Step(NamedTuple):
    """A process: where its lines go, what runs, and for how long at most."""

    file: str
    module: str
    seconds: float  # the table also has what the steps before it left over
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = {}  # noqa: RUF012


# What can wedge a GPU comes last, so that it cannot take the table with it.
PLAN = (
    Step("device", "device", 35, env=SMALL),
    Step("exact", "exact", 60),
    Step("table", "table", 150, env=HALF),
    Step("variants", "variants", 45, ("default",)),
    Step("variants", "variants", 35, ("while",), WHILE),
    Step("tests", "suite", 40, env={**SMALL, **EXACT}),
    *(Step("sync", "sync", 16, (name,), SMALL) for name in SYNCS),
    *(Step("sketches", "sketch", 26, (name,), SMALL) for name in SKETCHES),
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"for everything (default: {SECONDS}, and more for a dry run)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny shapes, JAX on the CPU"
    )
    names = list(dict.fromkeys(step.file for step in PLAN))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    options.results = options.results.resolve()
    options.slower = DRY_SLOWER if options.dry_run else 1
    options.seconds = options.seconds or SECONDS * options.slower
    return options


def environment(step: Step, dry: bool) -> dict[str, str]:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **step.env}
    if dry:
        env.pop("XLA_FLAGS", None)  # a flag of the GPU's compiler
        env["JAX_PLATFORMS"] = "cpu"
    return env


def run(step: Step, seconds: float, folder: Path, dry: bool) -> str:
    """Runs one step to its end or its limit; returns how it ended."""
    path, name = folder / f"{step.file}.jsonl", " ".join((step.module, *step.arguments))
    command = [sys.executable, "-m", "benchmarks.gpu.task", step.module, str(path)]
    command += [f"{seconds:.0f}", *step.arguments, *(["--dry-run"] if dry else [])]
    log_path = folder / "log.txt"
    with log_path.open("a") as log:
        log.write(f"\n=== {name}\n")
        log.flush()
        before = log.tell()
        # a session of its own, so that its children end with it
        child: Any = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(step, dry),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(seconds)
            ended = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            code, ended = None, f"stopped at its limit of {seconds:.0f} s"
        finally:
            stop(child)
    if code != 0:
        with log_path.open(errors="replace") as log:
            log.seek(before)
            tail = log.read()[-1500:]
        Lines(path, stage=step.module).write(task=name, error=ended, tail=tail)
    return ended


def stop(child: Any) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        child.wait(5)  # a process that waits for a wedged GPU may not end
    except subprocess.TimeoutExpired:
        print(f"process {child.pid} does not end", flush=True)


def main() -> int:
    options = parse()
    options.results.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start = time.monotonic()
    steps = [
        step._replace(seconds=step.seconds * options.slower)
        for step in PLAN
        if step.file in options.only
    ]
    for name in ("log.txt", *(f"{step.file}.jsonl" for step in steps)):
        (options.results / name).unlink(missing_ok=True)
    print(f"plan: {options.seconds:.0f} s in all, results in {options.results}")
    for step in steps:
        print(f"  {step.module} {' '.join(step.arguments)}: {step.seconds:.0f} s")
    for i, step in enumerate(steps):
        now = time.monotonic() - start
        # most steps end early; half of their limits is kept for those to come
        spare = options.seconds - now - sum(s.seconds for s in steps[i + 1 :]) / 2
        left = options.seconds - now - 2
        limit = max(step.seconds, spare) if step.file == "table" else step.seconds
        limit = min(limit, left)
        name = " ".join((step.module, *step.arguments))
        if limit < 5:
            print(f"[{now:4.0f} s] {name}: no time left", flush=True)
            path = options.results / f"{step.file}.jsonl"
            Lines(path, stage=step.module).write(task=name, error="no time left")
            continue
        print(f"[{now:4.0f} s] {name}, at most {limit:.0f} s", flush=True)
        ended = run(step, limit, options.results, options.dry_run)
        print(f"[{time.monotonic() - start:4.0f} s] {name}: {ended}", flush=True)
    print(summary(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
