"""The experiment: `train`, networks on one task, and `report`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.frame import distributed, files
from experiments.frame.checkpoint import Checkpoints, refuse_run, refuse_runs
from experiments.frame.data import digest
from experiments.frame.errors import InputError, refuse
from experiments.frame.experiment import (
    Evaluation,
    Experiment,
    Result,
    Run,
    open_run,
    settle,
    where,
    write_result,
)
from experiments.frame.files import make_folder
from experiments.frame.page import marked, table, write_page
from experiments.frame.report import report
from experiments.rl import page, tasks
from experiments.rl.settings import OF_MEMORY, Settings, preset
from experiments.rl.training import Training, loop


def check(settings: Settings, given: dict[str, Any]) -> None:
    """That the options belong together."""
    T, L = settings.rollout, settings.chunk
    if T % L:
        raise InputError(f"--chunk {L}: not a divisor of --rollout {T}")
    items = settings.envs * T // L
    if items % settings.minibatches:
        raise InputError(
            f"--minibatches {settings.minibatches}: not a divisor of {items}, the "
            "chunks of a rollout (--envs times --rollout over --chunk)"
        )
    if settings.burn_in > L:  # or that of a chunk would begin before the rollout
        raise InputError(f"--burn-in {settings.burn_in}: at most --chunk {L}")
    most = 2**31 - settings.seeds
    if settings.seed > most:
        raise InputError(f"--seed {settings.seed}: at most {most}, for all --seeds")
    if settings.network == "mlp":
        refuse(given, OF_MEMORY, "with the network mlp")
    if settings.network == "rnn":
        refuse(given, ["span"], "with the network rnn")
    if settings.task.startswith("gymnax:"):
        refuse(given, ["length"], f"with the task {settings.task}")
    elif settings.task == "repeat" and settings.length >= 52:
        raise InputError(f"--length {settings.length}: less than 52, the cards")


def evaluate(run: Run) -> Evaluation:
    """Episodes of the likeliest actions, by the policies of all seeds."""
    settings, facts = run.settings, run.facts
    returns, scores = run.model.test()
    ratio = max(max(row["ratio"]) for row in facts["train"])
    found = {"policies": settings.seeds, "score": float(np.mean(scores)),
             "worst score": min(scores), "return": float(np.mean(returns)),
             "ratio off by": ratio}  # fmt: skip
    name = tasks.title(settings.task, settings.length)
    headline = (
        f"{page.label(asdict(settings))}, {name}: score **{found['score']:.3f}** in "
        f"the test, the mean of {settings.seeds} seeds ({found['worst score']:.3f} the "
        f"worst); return {found['return']:.2f}."
    )
    seeds = {"returns": returns, "of_seeds": scores}
    result = Result(name, facts["digest"], found, more=seeds)
    return Evaluation([result], headline, seeds)


# what the frame's report needs; the training is that below
EXPERIMENT = Experiment(
    "Reinforcement learning with memory", preset, None, None, page, evaluate, check,
    {"policies": 0, "return": 2, "score": 3, "worst score": 3, "ratio off by": 8},
    page.figures,
)  # fmt: skip


def fit(given: dict[str, Any], out: Path, *, resume: bool, save_seconds: float) -> bool:
    """Trains one network, tests it and writes its page; False if it was stopped."""
    checkpoints, facts = open_run(out, resume)
    settings = settle(preset(given), given, facts, out)
    check(settings, given)
    training = Training(settings)
    if checkpoints is None:
        make_folder(out)
        checkpoints = Checkpoints(out)
    if facts is not None:
        training.state = checkpoints.arrays(arrays=training.state)["arrays"]
        training.step = facts["step"]
        print(f"Going on from step {training.step} of {settings.steps}.")
    else:
        if resume:
            print(f"No checkpoint in {out} yet: starting at the beginning.")
        facts = {"step": 0, "seconds": 0.0, "pending": [], "train": [], "held_out": []}
    facts |= {"settings": asdict(settings), "weights": training.weights, **where()}
    facts |= {"digest": digest([settings.task, settings.length])}
    try:
        finished = loop(training, facts, checkpoints, save_seconds)
    finally:
        checkpoints.close()
    if not finished:
        print(
            f"Stopped at step {training.step} of {settings.steps}; a checkpoint is in "
            f"{out}. To go on, give the same command with --resume."
        )
        return False
    rate = training.step * training.per_step / facts["seconds"]
    curve = {"settings": asdict(settings), "rows": facts["train"], "rate": rate}
    files.write(out / "curve.json", json.dumps(curve))
    run = Run(out, settings, facts, training, None, {})
    evaluation = evaluate(run)
    for result in evaluation.results:
        write_result(run, result)
    print(evaluation.headline.replace("**", ""))
    print(
        f"{facts['seconds'] / 60:.1f} minutes of training, {rate:,.0f} steps a second."
    )
    title, body = page.page(run, evaluation, curve)
    body = f"""<p class="big">{marked(evaluation.headline)}</p>
{body}
<h2>Settings</h2>
{table(asdict(settings))}"""
    print(f"Report: {write_page(out / 'report.html', title, body)}")
    return True


def train(
    given: dict[str, Any], networks: list[str], out: Path, resume: bool, **how: Any
) -> int:
    """Trains networks one after the other, each in a folder; then the page of all."""
    if distributed.count() > 1:
        raise InputError("--distributed: the policies of a run need one process")
    task = given.get("task", Settings.task)
    plans = {}
    for network in dict.fromkeys(networks):
        blind = network == "mlp" and len(networks) > 1
        own = {k: v for k, v in given.items() if not (blind and k in OF_MEMORY)}
        own |= {"network": network}
        check(replace(preset(own), **own), own)
        plans[network] = own
    tasks.make(task, 1)  # before a folder is made
    refuse_run(out)
    folder = out / task.replace(":", "-")
    refuse_runs((folder / network for network in plans), resume)
    for network, own in plans.items():
        print(f"\n{page.label(asdict(replace(preset(own), **own)))}.")
        if not fit(own, folder / network, resume=resume, **how):
            return 130
    return report(EXPERIMENT, [out], None, out)
