"""The command `train`: from text to a report, with checkpoints in between."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import training
from experiments.errors import InputError
from experiments.language_model import data
from experiments.language_model.report import write_report
from experiments.language_model.sample import Sampling, sample
from experiments.language_model.settings import Settings
from experiments.language_model.train import Trainer
from experiments.training import open_run, settle

# what a checkpoint cannot go on with if it is changed
FIXED = ("cell", "layers", "hidden", "embedding", "batch", "window", "held_out", "seed")


def check_text(text: data.Text, facts: dict[str, Any], out: Path) -> None:
    if text.vocabulary != facts["vocabulary"]:
        raise InputError(
            f"--data: {text.name} has {len(text.vocabulary)} distinct characters, the "
            f"checkpoint in {out} another vocabulary, of {len(facts['vocabulary'])}"
        )
    if text.digest != facts["digest"]:
        raise InputError(
            f"--data: {text.name} is not the text that the checkpoint in {out} was "
            f"trained on ({facts['text']})"
        )


def train(
    given: dict[str, Any],
    out: Path,
    *,
    data_dir: Path | None,
    resume: bool,
    save_seconds: float,
    sampling: Sampling,
) -> int:
    """Trains, evaluates, samples and reports; returns the exit code."""
    checkpoints, facts = open_run(out, resume)
    settings = settle(Settings(), given, facts, out, FIXED)
    sampling = sampling._replace(seed=settings.seed)
    text = data.load(settings.data, settings.held_out, data_dir)
    data.check_lengths(text, settings.batch, settings.window)
    sampling.check_prompt(text.vocabulary)
    if facts is not None:
        check_text(text, facts, out)
    print(
        f"{text.name}: {len(text.train):,} characters to train on, "
        f"{len(text.held_out):,} held out, {len(text.vocabulary)} distinct."
    )
    trainer = Trainer(settings, text)
    new = {"text": text.name, "vocabulary": text.vocabulary, "digest": text.digest}
    how = {"resume": resume, "save_seconds": save_seconds}
    facts = training.train(trainer, facts, new, checkpoints, out, **how)
    if facts is None:
        return 130
    written = sample(trainer.model, text.vocabulary, sampling)
    print(f"\n{written}\n")
    nats = facts["held_out"][-1]["nats"]
    print(
        f"Held-out text: {nats:.4f} nats, {nats / np.log(2):.4f} bits per character "
        f"after {facts['seconds'] / 60:.1f} minutes of training."
    )
    print(f"Report: {write_report(out, facts, sampling, written)}")
    return 0
