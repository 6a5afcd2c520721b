"""The command `train`: from text to a report, with checkpoints in between."""

import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.errors import InputError
from experiments.language_model import data
from experiments.language_model.checkpoint import Checkpoints
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
    return replace(saved, **given)


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
    checkpoints = Checkpoints(out)
    found = checkpoints.newest is not None
    if found and not resume:
        raise InputError(
            f"--out {out}: holds a run already; --resume goes on with it, "
            "or choose another folder"
        )
    facts = checkpoints.facts() if found else None
    settings = settle(given, facts, out)
    text = data.load(settings.data, settings.held_out)
    data.check_lengths(text, settings.batch, settings.window)
    sampling.check_prompt(text.vocabulary)
    if facts is not None:
        check_text(text, facts, out)
    trainer = Trainer(settings, text)
    if facts is not None:
        trainer.state, trainer.step = checkpoints.arrays(trainer.state), facts["step"]
        print(f"Going on from step {trainer.step} of {settings.steps}.")
    else:
        if resume:
            print(f"No checkpoint in {out} yet: starting at the beginning.")
        facts = {"text": text.name, "vocabulary": text.vocabulary, "seconds": 0.0,
                 "digest": text.digest, "train": [], "held_out": []}  # fmt: skip
    weights = sum(w.size for w in jax.tree.leaves(trainer.state.weights))
    facts |= {"settings": asdict(settings), "step": trainer.step, "weights": weights}
    print(
        f"{text.name}: {len(text.train):,} characters to train on, "
        f"{len(text.held_out):,} held out, {len(text.vocabulary)} distinct."
    )
    finished = loop(trainer, text, facts, checkpoints, save_seconds)
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
    before, losses, held_out = facts["seconds"], [], ""

    def save() -> None:
        facts["seconds"] = before + time.monotonic() - start
        facts["step"] = trainer.step
        if checkpoints.newest != trainer.step:
            checkpoints.save(trainer.step, trainer.state, facts)

    with (
        Interrupts() as interrupts,
        tqdm(
            total=steps * chars,
            initial=trainer.step * chars,
            unit="char",
            unit_scale=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        ) as bar,
    ):
        while trainer.step < steps and not interrupts.seen:
            losses.append(trainer.advance())
            bar.update(chars)
            last = trainer.step == steps
            if trainer.step % log_every == 0 or last:
                loss = float(np.mean(jax.device_get(losses)))
                losses = []
                facts["train"].append({"step": trainer.step, "nats": loss})
                shown = f"loss {loss:.3f}, {loss / np.log(2):.3f} bits/char{held_out}"
                bar.set_postfix_str(shown, refresh=False)
                if not np.isfinite(loss):
                    raise InputError(f"the loss is {loss} at step {trainer.step}: "
                                     "try a lower --learning-rate")  # fmt: skip
            if trainer.step % evaluate_every == 0 or last:
                nats = evaluate(trainer.model, text.held_out)
                facts["held_out"].append({"step": trainer.step, "nats": nats})
                held_out = f", held out {nats:.3f}"
            if time.monotonic() - saved >= save_seconds or last:
                save()
                saved = time.monotonic()
        finished = trainer.step == steps
        if not finished:
            save()
    return finished


class Interrupts:
    """Notes Ctrl-C and SIGTERM for the loop to end at a whole step."""

    def __enter__(self) -> "Interrupts":
        self.seen = False
        self.before = {
            number: signal.signal(number, self.note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def note(self, number: int, frame: Any) -> None:
        if self.seen:  # asked twice
            raise KeyboardInterrupt
        self.seen = True

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
