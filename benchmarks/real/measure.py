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
from benchmarks.real.training import Sizes
from benchmarks.right import precision, relative_error
from benchmarks.rows import Row
from benchmarks.scan.cases import AGAIN, OURS, PLAIN
from benchmarks.timing import fitting, median_iqr, take_turns

PACKAGES = ("jax", "jaxseq", "flax", "optax")


class Compiled(NamedTuple):
    """A training step, compiled, and the state that it starts from."""

    step: Any
    state: Any
    ms: float


def measure(
    case: Case,
    device: Any,
    steps: int,
    rounds: int,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    """Rows of both scans, which have no times if losses in float64 are others."""
    load = os.getloadavg()[0]
    with jax.default_device(device), precision("float32"):
        with jax.enable_x64(True):
            off64 = difference(both(case, np.float64), steps)[0]
        tell(f"float64: losses of {steps} steps within {off64:.1e} of the largest")
        runs = both(case, np.float32)
        off, losses = difference(runs, steps)
        tell(f"float32: losses of {steps} steps within {off:.1e} of the largest")
        rows: dict[str, Row] = {
            name: {
                "compile_ms": run.ms,
                "temp_mb": temp_mb(run.step),
                "first_loss": float(losses[name][0]),
                "last_loss": float(losses[name][-1]),
            }
            for name, run in runs.items()
        }
        reason = None if off64 <= EXACT else f"other losses in float64, by {off64:.1e}"
        if rounds and reason is None:
            rounds, times = turns(runs, rounds, device.platform != "cpu")
            rows[AGAIN] = rows[PLAIN]
            for name, found in times.items():
                ms, iqr = median_iqr(found)
                rows[name] = rows[name] | {"median_ms": ms, "iqr_ms": iqr}
    shared = {"reason": reason, "steps": steps, "off64": off64, "off": off}
    shared |= {"rounds": rounds, "load": load, "cores": cores()}
    shared["same"] = program(runs[PLAIN].step) == program(runs[OURS].step)
    shared["versions"] = {name: version(name) for name in PACKAGES}
    empty = dict.fromkeys(("median_ms", "iqr_ms"))
    return [
        {"contender": name, **case._asdict(), **empty, **row, **shared}
        for name, row in rows.items()
    ]


def both(case: Case, dtype: Any) -> dict[str, Compiled]:
    model = importlib.import_module(f"benchmarks.real.{case.op}")
    found = {}
    for name, scan in ((PLAIN, lax.scan), (OURS, jaxseq.scan)):
        step, state = model.training(Sizes(*case[2:6]), scan, dtype)
        jax.clear_caches()
        compiled, ms = compile_call(step, (state, jax.random.key(0)))
        found[name] = Compiled(compiled, state, ms)
    return found


def difference(
    runs: dict[str, Compiled], steps: int
) -> tuple[float, dict[str, np.ndarray]]:
    """How far losses are apart, over the largest of them, and these losses."""
    losses = {}
    for name, run in runs.items():
        state, found = run.state, []
        for key in jax.random.split(jax.random.key(1), steps):
            state, loss = run.step(state, key)
            found.append(loss)
        losses[name] = np.array(found)
    return relative_error(losses[OURS], losses[PLAIN]), losses


def turns(
    runs: dict[str, Compiled], rounds: int, ahead: bool
) -> tuple[int, dict[str, list[float]]]:
    key = jax.random.key(2)
    contenders = {
        name: Contender(lambda run=run: run.step(run.state, key), dict)
        for name, run in runs.items()
    }
    contenders[AGAIN] = contenders[PLAIN]
    calls, rounds = fitting(contenders, rounds, ahead)
    return rounds, take_turns(contenders, rounds, ahead, calls=calls)
