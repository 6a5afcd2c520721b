"""The training that all experiments share: settings, optimiser, loop, resuming."""

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from benchmarks.device import commit, cores, device_name
from experiments.checkpoint import (
    Checkpoints,
    has_checkpoints,
    make_folder,
    refuse_runs,
)
from experiments.errors import InputError
from experiments.interrupts import Interrupts


class Trainer(Protocol):
    """What `loop` trains."""

    settings: Any  # with `steps`
    state: Any  # a pytree, what a checkpoint holds
    step: int
    unit: str  # of the progress bar
    per_step: int  # units

    def advance(self) -> Any:
        """Does one step and returns its loss in nats."""

    def evaluate(self) -> float:
        """The held-out loss in nats."""
        ...


def make_optimizer(settings: Any) -> optax.GradientTransformation:
    """AdamW with gradients clipped to norm 1, a short warm-up and a cosine to 0."""
    warmup = min(getattr(settings, "warmup", 100), settings.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup, settings.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.99, weight_decay=settings.weight_decay),
    )


def open_run(
    out: Path, resume: bool
) -> tuple[Checkpoints | None, dict[str, Any] | None]:
    """The checkpoints in the folder of a run and the newest one's facts, if any."""
    if not has_checkpoints(out):
        return None, None
    make_folder(out)
    checkpoints = Checkpoints(out)
    if checkpoints.newest is None:
        return checkpoints, None
    refuse_runs([out], resume)
    return checkpoints, checkpoints.facts()


def saved_settings(kind: type, facts: dict[str, Any], out: Path) -> Any:
    """The settings that a checkpoint was made with, as a `kind`."""
    try:
        return kind(**facts["settings"])
    except TypeError as e:
        raise InputError(f"{out}: holds a run of another experiment or version") from e


def settle(
    defaults: Any,
    given: dict[str, Any],
    facts: dict[str, Any] | None,
    out: Path,
    fixed: tuple[str, ...],
) -> Any:
    """Settings from the command line over those of the checkpoint, if there is one.

    `fixed` names those that a checkpoint cannot go on with if they are changed.
    """
    if facts is None:
        return replace(defaults, **given)
    saved = saved_settings(type(defaults), facts, out)
    for name in fixed:
        if name in given and given[name] != getattr(saved, name):
            flag = isinstance(given[name], bool)
            option = "--" + "no-" * (flag and not given[name]) + name.replace("_", "-")
            raise InputError(
                f"{option}{'' if flag else f' {given[name]}'}: the checkpoint in {out} "
                f"was made with {getattr(saved, name)}; leave the option out, or "
                "choose another --out"
            )
    settings = replace(saved, **given)
    if settings.steps < facts["step"]:
        raise InputError(
            f"--steps {settings.steps}: the checkpoint in {out} is at step "
            f"{facts['step']} already"
        )
    # a finished run stays as it was
    return saved if settings.steps == facts["step"] else settings


def train(
    trainer: Trainer,
    facts: dict[str, Any] | None,
    new: dict[str, Any],
    checkpoints: Checkpoints | None,
    out: Path,
    *,
    resume: bool,
    save_seconds: float,
) -> dict[str, Any] | None:
    """Trains from the checkpoint or the beginning; the facts, or None if stopped.

    `new` are the facts of a run that begins; those about its course are added.
    """
    if checkpoints is None:  # nothing is made before the input is known to be good
        make_folder(out)
        checkpoints = Checkpoints(out)
    steps = trainer.settings.steps
    if facts is not None:
        trainer.state, trainer.step = checkpoints.arrays(trainer.state), facts["step"]
        print(f"Going on from step {trainer.step} of {steps}.")
    else:
        if resume:
            print(f"No checkpoint in {out} yet: starting at the beginning.")
        course = {"step": 0, "seconds": 0.0, "pending": [], "train": [], "held_out": []}
        facts = new | course
    weights = sum(w.size for w in jax.tree.leaves(trainer.state.weights))
    facts |= {"settings": asdict(trainer.settings), "weights": weights}
    facts |= {"cores": cores(), "device": device_name(jax.devices()[0])}
    facts |= {"jax": jax.__version__, "commit": commit("experiments/*.py")}
    try:
        finished = loop(trainer, facts, checkpoints, save_seconds)
    finally:
        checkpoints.close()
    if finished:
        return facts
    print(
        f"Stopped at step {trainer.step} of {steps}; a checkpoint is in {out}. "
        "To go on, give the same command with --resume.",
        file=sys.stderr,
    )
    return None


def loop(
    trainer: Trainer,
    facts: dict[str, Any],
    checkpoints: Checkpoints,
    save_seconds: float,
) -> bool:
    """Trains to the last step, or to an interrupt, whose answer is False."""
    steps, units = trainer.settings.steps, trainer.per_step
    log_every, evaluate_every = max(1, steps // 200), max(1, steps // 8)
    start = saved = time.monotonic()
    before, held_out = facts["seconds"], ""
    losses = facts["pending"]  # of the steps since the last row of facts["train"]

    def fetch() -> None:
        losses[:] = map(float, jax.device_get(losses))
        if not np.isfinite(losses).all():
            raise InputError(
                f"the loss is {losses[-1]} at step {trainer.step}: try a lower "
                f"--learning-rate; {left()}"
            )

    def check(held_out: float = 0.0) -> None:
        """That neither the weights nor the held-out loss are spoilt."""
        weights = jax.tree.leaves(trainer.state.weights)
        norms = [float(jnp.vdot(w, w)) for w in weights]
        if not np.isfinite([*norms, held_out]).all():
            raise InputError(
                f"the weights are spoilt at step {trainer.step}: try a lower "
                f"--learning-rate; {left()}"
            )

    def left() -> str:
        if checkpoints.newest is None:
            return "no checkpoint was written"
        return f"the last checkpoint is of step {checkpoints.newest}"

    def save() -> None:
        fetch()
        check()
        facts["seconds"] = before + time.monotonic() - start
        facts["step"] = trainer.step
        if checkpoints.newest != trainer.step:
            checkpoints.save(trainer.step, trainer.state, facts)

    bar = tqdm(
        total=steps * units,
        initial=trainer.step * units,
        unit=trainer.unit,
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with Interrupts() as interrupts, bar:
        while trainer.step < steps and not interrupts.seen:
            losses.append(trainer.advance())
            bar.update(units)
            last = trainer.step == steps
            if trainer.step % log_every == 0 or last:
                fetch()
                loss = float(np.mean(losses))
                losses.clear()
                facts["train"].append({"step": trainer.step, "nats": loss})
                bar.set_postfix_str(f"loss {loss:.3g}{held_out}", refresh=False)
            if trainer.step % evaluate_every == 0 or last:
                nats = trainer.evaluate()
                check(nats)
                facts["held_out"].append({"step": trainer.step, "nats": nats})
                held_out = f", held out {nats:.3g}"
            if time.monotonic() - saved >= save_seconds or last:
                save()
                saved = time.monotonic()
        if trainer.step < steps:
            save()
    return trainer.step == steps and not interrupts.seen
