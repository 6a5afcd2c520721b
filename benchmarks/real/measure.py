"""Compares and times the training of a model by both scans: a row for each."""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

import jaxseq
from benchmarks.cases import Case
from benchmarks.contender import Contender, compile_call, temp_mb
from benchmarks.contenders import version
from benchmarks.device import cores
from benchmarks.program import program
from benchmarks.real.cases import EXACT
from benchmarks.real.compare import compare
from benchmarks.real.training import Sizes, Training
from benchmarks.right import precision
from benchmarks.rows import Row
from benchmarks.scan.cases import AGAIN, OURS, PLAIN
from benchmarks.timing import fitting, median_iqr, take_turns

PACKAGES = ("jax", "jaxseq", "flax", "optax")


class Compiled(NamedTuple):
    training: Training  # whose step is compiled
    ms: float


def measure(
    case: Case,
    device: Any,
    steps: int,
    rounds: int,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    """Rows of both scans, which have no times if they differ in float64."""
    load = os.getloadavg()[0]
    with jax.default_device(device), precision("float32"):
        with jax.enable_x64(True):
            exact = compare(*trainings(both(case, np.float64)), steps)
        tell(f"float64: {exact}")
        runs = both(case, np.float32)
        found = compare(*trainings(runs), steps)
        tell(f"float32: {found}")
        rows: dict[str, Row] = {
            name: {"compile_ms": run.ms, "temp_mb": temp_mb(run.training.step)}
            for name, run in runs.items()
        }
        off, reason = exact.same_start, None
        if not off <= EXACT:
            reason = f"other steps in float64, by {off:.1e}"
        if rounds and reason is None:
            rounds, times = turns(runs, rounds, device.platform != "cpu")
            rows[AGAIN] = rows[PLAIN]
            for name, each in times.items():
                ms, iqr = median_iqr(each)
                rows[name] = rows[name] | {"median_ms": ms, "iqr_ms": iqr}
        same = len({program(run.training.step) for run in runs.values()}) == 1
    shared: Row = {"reason": reason, "steps": steps, "rounds": rounds, "load": load}
    shared |= {"float64": exact._asdict(), "float32": found._asdict(), "same": same}
    shared |= {"cores": cores(), "versions": {name: version(name) for name in PACKAGES}}
    empty = dict.fromkeys(("median_ms", "iqr_ms"))
    return [
        {"contender": name, **case._asdict(), **empty, **row, **shared}
        for name, row in rows.items()
    ]


def both(case: Case, dtype: Any) -> dict[str, Compiled]:
    model = importlib.import_module(f"benchmarks.real.{case.op}")
    found = {}
    for name, scan in ((PLAIN, lax.scan), (OURS, jaxseq.scan)):
        training = model.training(Sizes(*case[2:6]), scan, dtype)
        jax.clear_caches()
        arguments = training.state, jax.random.key(0)
        step, ms = compile_call(training.step, arguments)
        found[name] = Compiled(training._replace(step=step), ms)
    return found


def trainings(runs: dict[str, Compiled]) -> tuple[Training, Training]:
    return runs[PLAIN].training, runs[OURS].training


def turns(
    runs: dict[str, Compiled], rounds: int, ahead: bool
) -> tuple[int, dict[str, list[float]]]:
    key = jax.random.key(2)
    contenders = {}
    for name, run in runs.items():
        step, state = run.training
        launch = lambda step=step, state=state: step(state, key)
        contenders[name] = Contender(launch, dict)
    contenders[AGAIN] = contenders[PLAIN]
    calls, rounds = fitting(contenders, rounds, ahead)
    return rounds, take_turns(contenders, rounds, ahead, calls=calls)
