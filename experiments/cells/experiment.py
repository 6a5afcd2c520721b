"""The experiment: what a test gives, and `rank`, all cells on all tasks."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.cells import data, model, page
from experiments.cells.settings import TAGGED, TEXTS, preset
from experiments.frame.checkpoint import Checkpoints, refuse_run, refuse_runs
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, fit
from experiments.frame.report import report

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


def trained(given: dict[str, Any], out: Path, **how: Any) -> dict[str, Any] | None:
    """The facts of a run; None if it was stopped. A finished one stays as it is."""
    if (out / "result-test.json").exists():
        facts = Checkpoints(out, read_only=True).facts()
        settings = asdict(replace(preset(given), **given))
        if facts["settings"] == settings and facts["step"] == settings["steps"]:
            return facts
    done = fit(of(given["task"]), given, out, **how)
    return None if done is None else done[0].facts


def rank(
    tasks: list[str], cells: list[str], rates: list[float], seeds: int,
    given: dict[str, Any], out: Path, **how: Any,
) -> int:  # fmt: skip
    """Every cell on every task, at the rate that the held-out data prefer."""
    pairs = [(task, cell) for task in tasks for cell in cells]
    folder = lambda *name: out / "-".join(map(str, name))
    every = [(pair, rate, seed) for pair in pairs for rate in rates
             for seed in range(seeds)]  # fmt: skip
    refuse_run(out)
    refuse_runs((folder(*pair, rate, s) for pair, rate, s in every), how["resume"])
    chosen = []
    for task, cell in pairs:
        losses: dict[float, float] = {}
        run = lambda rate, seed, task=task, cell=cell: trained(
            {**given, "task": task, "cell": cell, "learning_rate": rate, "seed": seed},
            folder(task, cell, rate, seed),
            **how,
        )
        for rate in rates:
            if (facts := run(rate, 0)) is None:
                return 130
            losses[rate] = facts["held_out"][-1]["loss"]
        best = min(losses, key=lambda rate: losses[rate])
        for seed in range(1, seeds):
            if run(best, seed) is None:
                return 130
        chosen += [folder(task, cell, best, seed) for seed in range(seeds)]
    return report(EXPERIMENT, chosen, None, out)
