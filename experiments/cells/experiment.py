"""The experiment: what a test gives, and `rank`, all cells on all tasks."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.cells import data, model, page
from experiments.cells.settings import TAGGED, TEXTS, preset
from experiments.frame import distributed, files
from experiments.frame.checkpoint import Checkpoints, refuse_run, refuse_runs
from experiments.frame.errors import Diverged, InputError
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, fit
from experiments.frame.report import report
from experiments.frame.results import write_rows


class Stopped(Exception):
    """A run that its user stopped."""


WIDER = 2.5  # a rate beyond those tried, over or under the last
errors = nnx.jit(model.errors)


def evaluate(run: Run) -> Evaluation:
    """The score of the test, and the processor's time of a step."""
    task, carry, found = run.settings.task, None, []
    batches = run.data.tests["test"]
    if task in TEXTS:
        carry = model.start(run.model, batches[0])
    for batch in batches:
        one, total = errors(run.model, batch, carry)
        carry = one.carry
        found.append((total, one.n))
    total, n = np.sum(jax.device_get(found), 0, float)
    scale = 100 if task in TAGGED else 1 / math.log(2) if task in TEXTS else 1
    name, value = page.score(task), float(scale * total / n)
    title, recurrent = data.title(run.settings), model.weights(run.model.recurrent)
    more = {"recurrent": recurrent, "cpu_ms": run.data.train.ms()}
    result = Result(title, run.data.digests["all"], {name: value}, more=more)
    headline = f"{page.label(asdict(run.settings))}, {title}: {name} **{value:.4g}**."
    return Evaluation([result], headline)


EXPERIMENT = Experiment(
    "Cells under one budget", preset, data, model, page, evaluate,
    digits={"squared error": 5, "accuracy": 2, "bits per character": 3},
    figures=page.figures,
)  # fmt: skip


def of(task: str) -> Experiment:
    """Texts are read window after window, with the state carried on."""
    return replace(EXPERIMENT, start=model.start) if task in TEXTS else EXPERIMENT


def train(given: dict[str, Any], **how: Any) -> int:
    """One cell on one task."""
    return 130 if fit(of(given.get("task", "adding")), given, **how) is None else 0


def tried(given: dict[str, Any], out: Path, **how: Any) -> dict[str, Any] | None:
    """A row of rates.jsonl; None if the run was stopped. A finished one stays as it is.

    `held_out` is the last loss, and None if the run diverged.
    """
    settings = asdict(replace(preset(given), **given))
    diverged = out / "diverged.json"
    if diverged.exists():
        row = json.loads(diverged.read_text(encoding="utf-8"))
        if row["settings"] == settings:
            return row
    facts = None
    if (out / "result-test.json").exists():
        facts = Checkpoints(out, read_only=True).facts()
        if facts["settings"] != settings or facts["step"] != settings["steps"]:
            facts = None
    try:
        if facts is None:
            if (done := fit(of(given["task"]), given, out, **how)) is None:
                return None
            facts = done[0].facts
    except Diverged as e:
        print(f"{out}: {e}", file=sys.stderr)
        why = str(e).partition(":")[0]
        row = {"settings": settings, "held_out": None, "diverged": why}
        if distributed.first():
            files.write(diverged, json.dumps(row))
        return row
    return {"settings": settings, "held_out": facts["held_out"][-1]["loss"]}


def searched(rates: list[float], loss: Callable[[float], float]) -> list[float]:
    """The rates at which the loss is finite, the best first.

    While the best of several is the least or the greatest, one beyond it is tried.
    """
    losses = {rate: loss(rate) for rate in rates}
    while len(rates) > 1:
        best = min(losses, key=lambda rate: losses[rate])
        if not math.isfinite(losses[best]) or min(losses) < best < max(losses):
            break
        beyond = best * WIDER if best == max(losses) else best / WIDER
        beyond = float(f"{beyond:.2g}")
        losses[beyond] = loss(beyond)
    finite = [rate for rate in losses if math.isfinite(losses[rate])]
    return sorted(finite, key=lambda rate: losses[rate])


def rank(
    tasks: list[str], cells: list[str], rates: list[float], seeds: int,
    given: dict[str, Any], out: Path, **how: Any,
) -> int:  # fmt: skip
    """Every cell on every task, at the rate that the held-out data prefer."""
    folder = lambda *name: out / "-".join(map(str, name))
    refuse_run(out)
    pairs = [*product(tasks, cells)]
    earlier = (run for pair in pairs for run in out.glob(f"{folder(*pair).name}-*"))
    refuse_runs(sorted(earlier), how["resume"])
    names = "task", "cell", "learning_rate", "seed"
    rows: list[dict[str, Any]] = []

    def loss(*name: Any) -> float:
        """What is held out has; infinite if the run diverged."""
        own = {**given, **dict(zip(names, name, strict=True))}
        if (row := tried(own, folder(*name), **how)) is None:
            raise Stopped
        rows.append(row)
        return math.inf if row["held_out"] is None else row["held_out"]

    chosen = []
    for pair in pairs:
        try:
            for rate in searched(rates, lambda rate, pair=pair: loss(*pair, rate, 0)):
                others = [loss(*pair, rate, seed) for seed in range(1, seeds)]
                if all(map(math.isfinite, others)):  # another seed may not like it
                    chosen += [folder(*pair, rate, seed) for seed in range(seeds)]
                    break
        except Stopped:
            return 130
    if not chosen:
        raise InputError("--rates: every run diverged; try lower ones")
    if distributed.first():
        write_rows(out / page.RATES, rows)
    return report(EXPERIMENT, chosen, None, out)
