"""From settings to a run, and from its model to what a test gives."""

from typing import Any

import numpy as np
from flax import nnx

from experiments import fit
from experiments.errors import InputError, refuse
from experiments.memory.model import Memory, loss
from experiments.memory.settings import Settings
from experiments.memory.tasks import (
    HELD_OUT,
    REMEMBERED,
    TEST,
    UNITS,
    Batch,
    Batches,
    baseline,
    solved,
)

HELD_OUT_BATCHES, TEST_BATCHES = 4, 10
ROWS = 250  # of a batch that is not to train on


def check(settings: Settings, given: dict[str, Any]) -> None:
    """That the options belong to the cell and the task."""
    cell, span = settings.cell, settings.span
    if cell not in ("lstm", "gru"):
        refuse(given, ["span"], f"with the cell {cell}")
    if cell != "lstm":
        refuse(given, ["forget_bias"], f"with the cell {cell}")
    if span is not None:
        refuse(given, ["forget_bias"], "with --span, which sets it")
        if span < 2:
            raise InputError(f"--span {span}: chrono needs at least 2")
    if settings.task == "adding" and settings.length < 2:
        raise InputError(f"--length {settings.length}: at least 2 for adding")


def make_model(settings: Settings, facts: Any = None) -> Memory:
    return Memory(settings, rngs=nnx.Rngs(settings.seed))


def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
    """A run, and its facts."""
    drawn = lambda seed, size: Batches(settings.task, settings.length, size, seed)
    held_out = [drawn(HELD_OUT, ROWS)[i] for i in range(HELD_OUT_BATCHES)]
    batches = drawn(settings.seed, settings.batch)
    made = fit.Fit(
        settings, make_model(settings), loss, batches, held_out, per_step=settings.batch
    )
    return made, {"digest": digest(settings)}


def digest(settings: Settings) -> str:
    return fit.digest([settings.task, settings.length])


def title(settings: Settings) -> str:
    steps = "steps" if settings.task == "adding" else "steps between"
    return f"{settings.task}, {settings.length} {steps}"


def answers(model: Memory, settings: Settings) -> tuple[np.ndarray, Batch]:
    """What the model says to the sequences of the test, and these."""
    drawn = Batches(settings.task, settings.length, ROWS, TEST)
    batches = [drawn[i] for i in range(TEST_BATCHES)]
    run = nnx.jit(lambda model, x: model(x))
    said = np.concatenate([np.asarray(run(model, batch.x)) for batch in batches])
    return said, Batch(*map(np.concatenate, zip(*batches, strict=True)))


def first_solved(rows: list[dict[str, Any]], below: float) -> int | None:
    """The step of the first row whose loss is below, if any is.

    No sequence comes twice, so the loss in training is one of sequences not seen.
    """
    return next((row["step"] for row in rows if row["nats"] < below), None)


def scores(
    said: np.ndarray, test: Batch, settings: Settings, facts: dict[str, Any]
) -> dict[str, float | None]:
    """The loss of the test, and after how many sequences a problem was solved.

    To copy, also the percentage of the ten symbols that are right.
    """
    task, T = settings.task, settings.length
    if task == "adding":
        found = {UNITS[task]: float(np.square(said[:, 0] - test.y).mean())}
    else:
        most = said.max(-1, keepdims=True)
        p = said - most - np.log(np.exp(said - most).sum(-1, keepdims=True))
        right = said[:, -REMEMBERED:].argmax(-1) == test.y[:, -REMEMBERED:]
        nats = -np.take_along_axis(p, test.y[..., None], -1).mean()
        found = {UNITS[task]: float(nats), "symbols right": 100 * float(right.mean())}
    step = first_solved(facts["train"], solved(task, T))
    return {
        **found,
        "without memory": baseline(task, T),
        "sequences until solved": None if step is None else step * settings.batch,
    }
