"""The experiment: what a test gives, and `sweep`, `gradients` and `gates`."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from experiments import datasets
from experiments.frame import distributed
from experiments.frame.checkpoint import refuse_run, refuse_runs
from experiments.frame.errors import InputError, refuse
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, fit, load
from experiments.frame.files import make_folder
from experiments.frame.report import report
from experiments.frame.results import write_rows
from experiments.memory import data, model, page
from experiments.memory.data import REMEMBERED, TEST, UNITS, Batch, Batches
from experiments.memory.gates import Found, read, telling, write_gates
from experiments.memory.gradients import MODELS, mean_norms, write_gradients
from experiments.memory.model import Memory
from experiments.memory.settings import BEGINNINGS, SMALL, Settings, preset


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


@nnx.jit
def answer(model: Memory, x: Any) -> Array:
    return model(x)


def answers(model: Memory, test: Batches) -> tuple[np.ndarray, Batch]:
    """What the model says to the sequences of the test, and these."""
    batches = [test[i] for i in range(data.TEST_BATCHES)]
    said = np.concatenate([np.asarray(answer(model, b.x)) for b in batches])
    return said, Batch(*map(np.concatenate, zip(*batches, strict=True)))


def first_solved(rows: list[dict[str, Any]], below: float) -> int | None:
    """The step of the first row whose loss is below, if any is.

    No sequence comes twice, so the loss in training is one of sequences not seen.
    """
    return next((row["step"] for row in rows if row["loss"] < below), None)


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
    step = first_solved(facts["train"], data.solved(task, T))
    return {
        **found,
        "without memory": data.baseline(task, T),
        "sequences until solved": None if step is None else step * settings.batch,
    }


def evaluate(run: Run) -> Evaluation:
    settings, title = run.settings, data.title(run.settings)
    said, test = answers(run.model, run.data.tests["test"])
    found = scores(said, test, settings, run.facts)
    unit, n = UNITS[settings.task], found["sequences until solved"]
    right = found.get("symbols right")
    headline = (
        f"{page.label(asdict(settings))}, {title}: {unit} {found[unit]:.5f} "
        f"({found['without memory']:.4f} without memory"
        + (f"; {right:.1f}% of the symbols right" if right is not None else "")
        + (f"); solved after {n:,} sequences." if n else "); not solved.")
    )
    result = Result(title, run.data.digests["test"], found)
    return Evaluation([result], headline, (said, test))


TITLE = "What is remembered, and for how long"
DIGITS = {UNITS["adding"]: 5, UNITS["copy"]: 5, "without memory": 4,
          "sequences until solved": 0}  # fmt: skip
EXPERIMENT = Experiment(
    TITLE, preset, data, model, page, evaluate, check, DIGITS, page.figures
)


def refuse_folders(out: Path, runs: Iterable[Path], resume: bool) -> None:
    refuse_run(out)
    refuse_runs(runs, resume)


def sweep(
    given: dict[str, Any], cells: list[str], lengths: list[int], out: Path, **how: Any
) -> int:
    """Trains each cell at each length, in folders of their own, and compares."""
    made = {}
    for length in lengths:
        for name in cells:
            own = {**given, **BEGINNINGS[name], "length": length}
            if "span" in own:
                own["span"] = length
            check(replace(preset(own), **own), own)  # before hours are spent
            made[out / f"{name}-{length}"] = own
    distributed.agree(lambda: refuse_folders(out, made, how["resume"]))
    for folder, own in made.items():
        if fit(EXPERIMENT, own, folder, **how) is None:
            return 130
    return distributed.agree(lambda: report(EXPERIMENT, [*made], None, out))


def gradients(given: dict[str, Any], sequences: int, out: Path, **how: Any) -> int:
    """The gradients of several models before and after training."""
    distributed.agree(
        lambda: refuse_folders(out, (out / name for name in MODELS), how["resume"])
    )
    small = lambda given: replace(preset(given), **SMALL)
    rows, settings = [], small(given)
    for name, cell in MODELS.items():
        own = given | cell
        if "span" in own:
            own["span"] = own.get("length", settings.length)
        done = fit(replace(EXPERIMENT, preset=small), own, out / name, **how)
        if done is None:
            return 130
        settings = done[0].settings
        rows += distributed.agree(lambda done=done: rows_of(*done, sequences))

    def finish() -> int:
        write_rows(out / "results.jsonl", rows)
        print(f"Report: {write_gradients(out, rows, settings)}")
        return 0

    return distributed.agree(finish)


def rows_of(run: Run, evaluation: Evaluation, sequences: int) -> list[dict[str, Any]]:
    """The gradients of one model before and after training."""
    settings, rows = run.settings, []
    x = Batches(settings.task, settings.length, sequences, TEST)[0].x
    name = page.label(asdict(settings))
    if settings.cell == "lstm" and settings.forget_bias == Settings.forget_bias:
        name += "" if settings.span else ", forget bias 1"
    error = evaluation.results[0].scores[UNITS[settings.task]]
    for when, module, loss in (
        ("at initialisation", model.make(settings, {}), None),
        ("after training", run.model, error),
    ):
        norms = mean_norms(module.recurrent, jnp.asarray(x), settings.hidden)
        row = {"title": "gradients", "model": name, "when": when, "error": loss}
        row |= dict(zip(("h", "state"), (n.tolist() for n in norms), strict=True))
        row |= {"sequences": sequences, "settings": asdict(settings)}
        rows.append(row)
    return rows


def gates(
    run: Path, input: Path | None, data_dir: Path | None, layer: int | None,
    unit: list[int], length: int, out: Path,
) -> int:  # fmt: skip
    """Texts coloured by single units of a language model."""
    from experiments.language_model.experiment import EXPERIMENT as LANGUAGE_MODEL

    try:
        _, settings, facts, language_model, *_ = load(LANGUAGE_MODEL, run)
    except InputError as e:
        raise InputError(f"{e}; experiments.language_model train makes one") from e
    vocabulary = facts["vocabulary"]
    if settings.cell != "lstm":
        raise InputError(f"--run {run}: of cell {settings.cell}, which has no cell")
    place = settings.layers if layer is None else layer
    if place > settings.layers:
        raise InputError(f"--layer {place}: the model has {settings.layers}")
    if any(n >= settings.hidden for n in unit):
        raise InputError(f"--unit {max(unit)}: the model has {settings.hidden}")
    if input is None:
        texts = LANGUAGE_MODEL.data.load(settings, data_dir)
        if texts.digests["all"] != facts["digest"]:
            raise InputError(f"--run {run}: its text has changed; give one by --input")
        text = "".join(vocabulary[i] for i in texts.tests["test"][:20_000])
    else:
        refuse({"data_dir": data_dir}, ["data_dir"], "with --input")
        text = datasets.read(input).replace("\r\n", "\n")
        if len(text) > 20_000:
            print(f"{input}: the first 20,000 characters of {len(text):,} are read")
            text = text[:20_000]
    strange = sorted(set(text) - set(vocabulary))
    if strange or not text:
        why = f"{strange[0]!r} is not a character it knows" if strange else "empty"
        raise InputError(f"--input {input}: {why}")
    tokens = jnp.array([vocabulary.index(char) for char in text])
    c, forget = map(np.asarray, read(language_model, tokens, layer=place - 1))
    found = telling(text, c)
    make_folder(out)
    for what, n, r in found:
        print(f"{what}: unit {n}, correlation {r:.2f}")
    chosen = [Found("", n, 0.0) for n in unit] or found[:5]
    about = {"text": input or "held out in training", **asdict(settings)}
    print(f"Report: {write_gates(out, text, c, forget, chosen, about, length)}")
    return 0
