"""The command `train`: from text to a report, with checkpoints in between."""

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.errors import InputError
from experiments.interrupts import Interrupts
from experiments.language_model import data
from experiments.language_model.checkpoint import (
    Checkpoints,
    has_checkpoints,
    make_folder,
)
from experiments.language_model.report import write_report
from experiments.language_model.sample import Sampling, sample
from experiments.language_model.settings import Settings
from experiments.language_model.train import Trainer, evaluate

# what a checkpoint cannot go on with if it is changed
FIXED = ("cell", "layers", "hidden", "embedding", "batch", "window", "held_out", "seed")


def settle(given: dict[str, Any], facts: dict[str, Any] | None, out: Path) -> Settings:
    """Settings from the command line over those of the checkpoint, if there is one."""
    if facts is None:
        return Settings(**given)
    saved = Settings(**facts["settings"])
    for name in FIXED:
        if name in given and given[name] != getattr(saved, name):
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} {given[name]}: the checkpoint in {out} was made with "
                f"{getattr(saved, name)}; leave the option out, or choose another --out"
            )
    settings = replace(saved, **given)
    if settings.steps < facts["step"]:
        raise InputError(
            f"--steps {settings.steps}: the checkpoint in {out} is at step "
            f"{facts['step']} already"
        )
    # a finished run stays as it was
    return saved if settings.steps == facts["step"] else settings


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
    resume: bool,
    save_seconds: float,
    sampling: Sampling,
) -> int:
    """Trains, evaluates, samples and reports; returns the exit code."""
    checkpoints = facts = None
    if has_checkpoints(out):
        make_folder(out)
        checkpoints = Checkpoints(out)
        if checkpoints.newest is not None:
            if not resume:
                raise InputError(
                    f"--out {out}: holds a run already; --resume goes on with it, "
                    "or choose another folder"
                )
            facts = checkpoints.facts()
    settings = settle(given, facts, out)
    sampling = sampling._replace(seed=settings.seed)
    text = data.load(settings.data, settings.held_out)
    data.check_lengths(text, settings.batch, settings.window)
    sampling.check_prompt(text.vocabulary)
    if facts is not None:
        check_text(text, facts, out)
    if checkpoints is None:  # nothing is made before the input is known to be good
        make_folder(out)
        checkpoints = Checkpoints(out)

    print(
        f"{text.name}: {len(text.train):,} characters to train on, "
        f"{len(text.held_out):,} held out, {len(text.vocabulary)} distinct."
    )
    trainer = Trainer(settings, text)
    if facts is not None:
        trainer.state, trainer.step = checkpoints.arrays(trainer.state), facts["step"]
        print(f"Going on from step {trainer.step} of {settings.steps}.")
    else:
        if resume:
            print(f"No checkpoint in {out} yet: starting at the beginning.")
        facts = {"text": text.name, "vocabulary": text.vocabulary, "step": 0}
        facts |= {"digest": text.digest, "seconds": 0.0, "pending": []}
        facts |= {"train": [], "held_out": []}
    weights = sum(w.size for w in jax.tree.leaves(trainer.state.weights))
    facts |= {"settings": asdict(settings), "weights": weights}
    try:
        finished = loop(trainer, text, facts, checkpoints, save_seconds)
    finally:
        checkpoints.close()
    if not finished:
        print(
            f"Stopped at step {trainer.step} of {settings.steps}; a checkpoint is in "
            f"{out}. To go on, give the same command with --resume.",
            file=sys.stderr,
        )
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


def loop(
    trainer: Trainer,
    text: data.Text,
    facts: dict[str, Any],
    checkpoints: Checkpoints,
    save_seconds: float,
) -> bool:
    """Trains to the last step, or to an interrupt, whose answer is False."""
    settings = trainer.settings
    steps, chars = settings.steps, settings.batch * settings.window
    log_every, evaluate_every = max(1, steps // 200), max(1, steps // 8)
    start = saved = time.monotonic()
    before, held_out = facts["seconds"], ""
    losses = facts["pending"]  # of the steps since the last row of facts["train"]

    def fetch() -> None:
        losses[:] = map(float, jax.device_get(losses))
        if not np.isfinite(losses).all():
            raise InputError(
                f"the loss is {losses[-1]} at step {trainer.step}: try a lower "
                "--learning-rate; the last checkpoint is from before"
            )

    def save() -> None:
        fetch()
        facts["seconds"] = before + time.monotonic() - start
        facts["step"] = trainer.step
        if checkpoints.newest != trainer.step:
            checkpoints.save(trainer.step, trainer.state, facts)

    bar = tqdm(
        total=steps * chars,
        initial=trainer.step * chars,
        unit="char",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with Interrupts() as interrupts, bar:
        while trainer.step < steps and not interrupts.seen:
            losses.append(trainer.advance())
            bar.update(chars)
            last = trainer.step == steps
            if trainer.step % log_every == 0 or last:
                fetch()
                loss = float(np.mean(losses))
                losses.clear()
                facts["train"].append({"step": trainer.step, "nats": loss})
                shown = f"loss {loss:.3f}, {loss / np.log(2):.3f} bits/char{held_out}"
                bar.set_postfix_str(shown, refresh=False)
            if trainer.step % evaluate_every == 0 or last:
                nats = evaluate(trainer.model, text.held_out)
                facts["held_out"].append({"step": trainer.step, "nats": nats})
                held_out = f", held out {nats:.3f}"
            if time.monotonic() - saved >= save_seconds or last:
                save()
                saved = time.monotonic()
        if trainer.step < steps:
            save()
    return trainer.step == steps
