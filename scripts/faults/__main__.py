"""Plants faults in the source, one at a time, and says which no test notices.

    python -m scripts.faults jaxseq/_cells/lstm.py --count 20

Each fault is planted in a copy of the repository, never in the repository itself, and
the tests of its file run there, the quickest first, until one fails. Before the first
they run without a fault: they have to pass, and it shows how long they take. A verdict
is kept as soon as it is known; the same command goes on where it was stopped. It runs
what survived again if the tests have changed.

Exit codes: 0 if each fault was noticed, 1 if one was not, 2 for wrong input.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from scripts.faults.kinds import Fault, choose, faults, shares

# The tests of a file are those named after its folders, and those that name what it
# defines. The engine is behind every function that is public, so its tests are here.
CELLS = "cells init loop torch layers remat transforms dtypes errors".split()
OWN = "updates examples seq2seq nn".split()
ENGINE = ["updates", *CELLS, "examples"]
TPU = ["tpu", "platforms"]
TESTS = {
    **{f"_cells/{name}": CELLS for name in "check gru lstm rnn states".split()},
    "_cells/init": [*CELLS, *OWN],
    **{f"_cells/{name}": OWN for name in ("any", "cell")},
    **{
        f"_engine/{name}": ENGINE
        for name in (
            "backends chain door linear loop loop_back lowering mesh over_time pieces"
            " plain primitive products recall rule run shapes steps types update vmap"
        ).split()
    },
    **{f"_base/{name}": CELLS for name in "dtypes masks resets".split()},
    "_base/by_time": "nn_over_time linen arguments".split(),
    **{
        f"convert/_{name}": [name]
        for name in "cudnn dynet equinox haiku keras torch".split()
    },
    **{f"convert/_flax_{name}": ["flax"] for name in ("from", "to")},
    **{
        f"convert/_{n}": "equinox flax haiku keras".split() for n in ("common", "gates")
    },
    "convert/_keras_config": ["keras"],
    "convert/_names": "torch keras flax haiku".split(),
    **{
        f"convert/_onnx_{name}": "onnx onnx_to onnx_vectors".split()
        for name in "from graph ops to".split()
    },
    "_base/functions": "files keras onnx".split(),
    "_base/rates": "cell_dropout nn_regularized".split(),
    "_base/called": "nn_over_time linen".split(),
    "nn/_crf": "nn everywhere arguments".split(),
    "nn/_over_time": "nn_over_time everywhere arguments".split(),
    **{
        f"linen/{name}": ["linen"] for name in "_draws _lifted _over_time _scan".split()
    },
    "_base/check": ["errors", "api", "decode", "attention", *CELLS],
    **{f"_kernels/{name}": TPU for name in "call tpu/limits tpu/scan".split()},
    **{f"_kernels/{name}": TPU for name in "tpu/steps tpu/tiles".split()},
}
IGNORED = ".* __pycache__ *.egg-info dist runs".split()
KEPT = Path("runs/faults")
HERE = Path(__file__).parents[2]


class Verdict(NamedTuple):
    path: str
    kind: str
    function: str
    line: int
    old: str
    new: str
    verdict: str  # killed, survived, timed out or not importable
    by: str  # the test that failed
    seconds: float
    source: str  # digest of the faulty source
    tests: str  # digest of the tests of its file


def targets(target: Path) -> list[Path]:
    files = [target] if target.is_file() else sorted(target.rglob("*.py"))
    return [f for f in files if f.suffix == ".py" and faults(f.read_text())]


@functools.cache
def tests_of(path: Path) -> list[Path]:
    """The test files of a source file, those named after its folders first."""
    every = sorted(Path("tests").rglob("test_*.py"))
    named = [folder.name.removeprefix("_") for folder in path.parents][:-1]
    library = path.parts[0] == "jaxseq"
    if library:
        # experiments take long, and say little of it
        every = [t for t in every if not any("experiments" in i for i in imported(t))]
    own = re.compile(rf"test_({'|'.join(named)})(_.*)?")
    tests = [t for t in every if own.fullmatch(t.stem)]
    inside = path.with_suffix("").as_posix().removeprefix("jaxseq/")
    if library and inside in TESTS:
        by_name = {t.stem.removeprefix("test_"): t for t in every}
        used = [by_name[name] for name in TESTS[inside]]
    else:
        used = [t for t in every if imports(t, path) or (library and names(t, path))]
    if not used and (library or not tests):  # it is behind others of its package
        others = sorted(Path(path.parts[0]).rglob("*.py"))
        used = [t for p in others if imports(p, path) for t in tests_of(p)]
    tests += used
    return list(dict.fromkeys(tests))


@functools.cache
def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imports(user: Path, path: Path) -> bool:
    return ".".join(path.with_suffix("").parts) in imported(user)


def names(test: Path, path: Path) -> bool:
    """Whether a test names what the file defines for users of `jaxseq`."""
    public = defined(path)
    used = rf"\b(jaxseq|nn)\.({public})\b"
    return bool(public and re.search(used, text(test)))


@functools.cache
def defined(path: Path) -> str:
    """The public names of a file, as alternatives of a pattern."""
    top = ast.parse(text(path)).body
    found = [d.name for d in top if isinstance(d, ast.FunctionDef | ast.ClassDef)]
    return "|".join(name for name in found if not name.startswith("_"))


@functools.cache
def text(path: Path) -> str:
    return path.read_text()


def digest(*paths: Path) -> str:
    return sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()[:16]


class Runner:
    """Runs tests in copies of the repository, one at a time in each."""

    def __init__(self, folder: Path, copies: int, seconds: float, limit: float):
        self.most, self.limit = seconds, limit
        self.copies: queue.Queue[Path] = queue.Queue()
        ignored = shutil.ignore_patterns(*IGNORED)
        for i in range(copies):
            copy = folder / str(i)
            shutil.copytree(".", copy, ignore=ignored)
            self.copies.put(copy)
        every = sorted((folder / "0").rglob("*.py"))
        code = [p for p in every if not p.name.startswith("test_")]
        self.code = digest(*code)
        self.running: set[subprocess.Popen[str]] = set()
        KEPT.mkdir(parents=True, exist_ok=True)

    def times(self, test: Path) -> Path:
        return KEPT.resolve() / f"{test.stem}-{digest(test)}-{self.code}.json"

    def seconds(self, test: Path) -> float:
        return sum(json.loads(self.times(test).read_text()).values())

    def pytest(
        self, copy: Path, tests: list[Path], limit: float | None
    ) -> tuple[str, int | None]:
        """What was printed, and the exit code; None if it took too long."""
        env = {
            **os.environ,
            # a command that a test starts elsewhere has to find the copy, too
            "PYTHONPATH": os.pathsep.join([str(copy), str(HERE)]),
            "FAULTS_SECONDS": str(self.most),
            "FAULTS_TIMES": os.pathsep.join(str(self.times(test)) for test in tests),
            "JAX_COMPILATION_CACHE_DIR": str(KEPT.resolve() / "cache"),
        }
        if limit is not None:  # what a faulty program compiles to is not kept
            env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"
        plugins = ["-p", "no:cacheprovider", "-p", "scripts.faults.quickest_first"]
        ignored = ["-W", "ignore:Error reading persistent compilation cache"]
        command = [sys.executable, "-m", "pytest", "-xq", *plugins, *ignored]
        process = subprocess.Popen(
            [*command, *map(str, tests)],
            cwd=copy,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.running.add(process)
        try:
            return process.communicate(timeout=limit)[0], process.returncode
        except subprocess.TimeoutExpired:
            return "", None
        finally:
            kill(process)
            self.running.discard(process)

    def clean(self, test: Path) -> str:
        """What a test file printed that fails with no fault planted, or nothing."""
        if self.times(test).exists():
            return ""
        copy = self.copies.get()
        try:
            printed, code = self.pytest(copy, [test], None)
        finally:
            self.copies.put(copy)
        return printed if code else ""

    def judge(self, path: Path, fault: Fault) -> Verdict:
        source = path.read_text()
        tests = tests_of(path)
        copy = self.copies.get()
        planted, begun = copy / path, time.monotonic()
        try:
            write(planted, fault.plant(source))
            seconds = min(self.most, sum(map(self.seconds, tests)))
            limit = self.limit + 3 * seconds
            printed, code = self.pytest(copy, tests, limit)
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
            by = found[1] if found else f"exit code {code}" if code else ""
        finally:
            write(planted, source)
            self.copies.put(copy)
        ends = {0: "survived", None: "timed out", 2: "not importable"}
        verdict = ends.get(code, "killed")
        return Verdict(
            str(path),
            *(fault.kind, fault.function, fault.line, fault.old, fault.new),
            *(verdict, by, round(time.monotonic() - begun, 1)),
            *keys(path, fault),
        )


def keys(path: Path, fault: Fault) -> tuple[str, str]:
    planted = fault.plant(path.read_text()).encode()
    return sha256(planted).hexdigest()[:16], digest(*tests_of(path))


def write(path: Path, source: str) -> None:
    path.write_text(source)
    # Python takes a source of the same second and size for the one it compiled
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def diff(verdict: Verdict, fault: Fault) -> str:
    source = Path(verdict.path).read_text()
    before, after = source.splitlines(), fault.plant(source).splitlines()
    lines = difflib.unified_diff(before, after, verdict.path, verdict.kind, "", "", 1)
    return "\n".join(line.rstrip("\n") for line in lines)


def known() -> dict[tuple[str, str], Verdict]:
    """The verdicts that are kept, by path and faulty source."""
    path = KEPT / "verdicts.jsonl"
    rows = path.read_text().splitlines() if path.exists() else []
    verdicts = [Verdict(**json.loads(row)) for row in rows]
    return {(v.path, v.source): v for v in verdicts}


def study(target: Path, count: int, seed: int, workers: int, **limits: float) -> int:
    files = targets(target)
    if not files:
        raise ValueError(f"{target}: no function to plant a fault in")
    for path in files:
        if not tests_of(path):
            raise ValueError(f"{path}: no test names it; see TESTS in {__file__}")
    parts = shares({f: len(faults(f.read_text())) for f in files}, count)
    chosen = [(f, x) for f in files for x in choose(f.read_text(), parts[f], seed)]
    old, verdicts, waiting = known(), [], []
    for path, fault in chosen:
        source, tests = keys(path, fault)
        verdict = old.get((str(path), source))
        if verdict and (verdict.verdict != "survived" or verdict.tests == tests):
            verdicts.append((verdict, fault))
        else:
            waiting.append((path, fault))
    print(f"{len(chosen)} faults in {len(files)} files, {len(verdicts)} judged before")
    if waiting:
        verdicts += judged(waiting, workers, **limits)
    for verdict, fault in verdicts:
        if verdict.verdict == "survived":
            print(diff(verdict, fault), end="\n\n")
    counts = Counter(verdict.verdict for verdict, _ in verdicts)
    print(", ".join(f"{n} {name}" for name, n in counts.most_common()))
    return 1 if counts["survived"] else 0


def judged(waiting: list[Any], workers: int, **limits: float) -> list[Any]:
    verdicts = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        runner = Runner(Path(folder), workers, **limits)
        try:
            tests = list(dict.fromkeys(t for f, _ in waiting for t in tests_of(f)))
            print(f"{len(tests)} files of tests without a fault first", flush=True)
            for test, printed in zip(tests, pool.map(runner.clean, tests), strict=True):
                if printed:
                    raise ValueError(f"{test} fails without a fault:\n{printed}")
                print(f"  {test}: {runner.seconds(test):.0f} s", flush=True)
            begun = time.monotonic()
            jobs = {pool.submit(runner.judge, *job): job[1] for job in waiting}
            for done in as_completed(jobs):
                verdict = done.result()
                verdicts.append((verdict, jobs[done]))
                with open(KEPT / "verdicts.jsonl", "a") as file:
                    file.write(json.dumps(verdict._asdict()) + "\n")
                left = len(jobs) - len(verdicts)
                minutes = (time.monotonic() - begun) / len(verdicts) * left / 60
                where = f"{verdict.path}:{verdict.line} {verdict.kind}"
                how = f"{verdict.verdict} {verdict.by}"
                print(f"{left} left, {minutes:.0f} min: {where}: {how}", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(runner.running):
                kill(process)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("target", type=Path, help="a source file, or a folder of them")
    parser.add_argument("--count", type=int, default=20, help="faults in all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, help="faults at a time")
    help = "seconds of tests that run against a fault, the quickest of them"
    parser.add_argument("--seconds", type=float, default=150, help=help)
    help = "seconds that a fault has beside three times the tests' own"
    parser.add_argument("--limit", type=float, default=60, help=help)
    options = parser.parse_args()
    target = options.target
    outside = target.is_absolute() or ".." in target.parts
    if outside or not target.exists() or not Path("tests").is_dir():
        parser.error(f"{target}: no file or folder under a repository's root")
    if options.count < 1 or options.workers < 1:
        parser.error("--count and --workers have to be at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return study(**vars(options))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except ValueError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
