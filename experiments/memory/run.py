"""The commands: train, sweep, gradients, gates, report."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import data, fit, results
from experiments.checkpoint import Checkpoints, make_folder, refuse_run, refuse_runs
from experiments.errors import InputError, refuse
from experiments.memory import gates, gates_page, gradients, train
from experiments.memory import report as pages
from experiments.memory.gates import Found
from experiments.memory.settings import BEGINNINGS, SMALL, Settings, defaults
from experiments.memory.tasks import TEST, UNITS, Batches

# what a checkpoint cannot go on with if it is changed
FIXED = ("task", "length", "cell", "hidden", "forget_bias", "span", "batch", "seed")
DIGITS = {UNITS["adding"]: 5, UNITS["copy"]: 5, "without memory": 4,
          "sequences until solved": 0}  # fmt: skip


def one(
    given: dict[str, Any], preset: Settings, out: Path, **how: Any
) -> tuple[fit.Fit, dict[str, Any]] | None:
    """Trains and tests one model, and writes its page; None if it was stopped."""

    def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
        train.check(settings, given)
        return train.make(settings)

    done = fit.run(given, preset, FIXED, make, out, **how)
    if done is None:
        return None
    trained, facts = done
    settings = trained.settings
    said, test = train.answers(trained.model, settings)
    scores = train.scores(said, test, settings, facts)
    name, digest = train.title(settings), train.digest(settings)
    result = fit.write_result(out, facts, name, digest, scores)
    print(f"{pages.label(asdict(settings))}, {name}: {pages.said_of(scores, settings)}")
    pages.write_run(out, facts, result, said, test)
    return trained, result


def preset_of(given: dict[str, Any]) -> Settings:
    cell = given.get("cell", Settings.cell)
    return defaults(given.get("task", Settings.task), cell)


def run(given: dict[str, Any], out: Path, **how: Any) -> int:
    """Trains one model; returns the exit code."""
    if one(given, preset_of(given), out, **how) is None:
        return 130
    print(f"Report: {out / 'report.html'}")
    return 0


def sweep(
    given: dict[str, Any], cells: list[str], lengths: list[int], out: Path, **how: Any
) -> int:
    """Trains each cell at each length, in folders of their own, and compares."""
    made = []
    for length in dict.fromkeys(lengths):
        for name in dict.fromkeys(cells):
            own = {**given, **BEGINNINGS[name], "length": length}
            if own.get("span") == "length":
                own["span"] = length
            made.append((own, out / f"{name}-{length}"))
    for own, _ in made:  # before hours are spent
        train.check(replace(preset_of(own), **own), own)
    refuse_run(out)
    refuse_runs((folder for _, folder in made), how["resume"])
    for own, folder in made:
        if one(own, preset_of(own), folder, **how) is None:
            return 130
    return report([folder for _, folder in made], None, out)


# the models of `gradients`, by the name of their folder
MODELS: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "rnn-relu": {"cell": "rnn-relu"},
    "irnn": {"cell": "irnn"},
    "lstm-0": {"cell": "lstm", "forget_bias": 0.0},
    "lstm-1": {"cell": "lstm", "forget_bias": 1.0},
    "lstm-3": {"cell": "lstm", "forget_bias": 3.0},
    "lstm-chrono": {"cell": "lstm", "span": "length"},
    "gru": {"cell": "gru"},
}


def measure(model: Any, settings: Settings, n: int) -> dict[str, list[float]]:
    """The norms over `n` sequences of the test."""
    x = Batches(settings.task, settings.length, n, TEST)[0].x
    h, state = gradients.mean_norms(model.recurrent, jnp.asarray(x), settings.hidden)
    return {"h": np.asarray(h).tolist(), "state": np.asarray(state).tolist()}


def gradient(given: dict[str, Any], sequences: int, out: Path, **how: Any) -> int:
    """The gradients of several models before and after training."""
    refuse_run(out)
    refuse_runs((out / name for name in MODELS), how["resume"])
    rows: list[dict[str, Any]] = []
    settings = Settings()
    for name, cell in MODELS.items():
        preset = replace(preset_of(given | cell), **SMALL)
        own = given | cell
        if "span" in own:
            own["span"] = own.get("length", preset.length)
        done = one(own, preset, out / name, **how)
        if done is None:
            return 130
        trained, result = done
        settings = trained.settings
        error = result["scores"][UNITS[settings.task]]
        model = pages.label(asdict(settings))
        if settings.cell == "lstm" and settings.forget_bias == Settings.forget_bias:
            model += "" if settings.span else ", forget bias 1"
        both = (
            ("at initialisation", train.make_model(settings), None),
            ("after training", trained.model, error),
        )
        for when, module, error in both:
            found = measure(module, settings, sequences)
            row = {"title": "gradients", "model": model, "when": when, "error": error}
            about = {"sequences": sequences, "settings": asdict(settings)}
            rows.append(row | found | about)
    results.write_rows(out / "results.jsonl", rows)
    print(f"Report: {pages.write_gradients(out, rows, settings)}")
    return 0


def show_gates(
    run: Path, path: Path | None, data_dir: Path | None, layer: int | None,
    units: list[int], length: int, out: Path,
) -> int:  # fmt: skip
    """Texts coloured by single units of a language model."""
    from experiments.language_model import data as texts
    from experiments.language_model import sample

    try:
        model, vocabulary = sample.load(run)
    except InputError as e:
        raise InputError(f"{e}; experiments.language_model train makes one") from e
    facts = Checkpoints(run, read_only=True).facts()
    settings = facts["settings"]
    if settings["cell"] != "lstm":
        raise InputError(f"--run {run}: of cell {settings['cell']}, which has no cell")
    layer = layer or int(settings["layers"])
    if layer > settings["layers"]:
        raise InputError(f"--layer {layer}: the model has {settings['layers']}")
    if any(unit >= settings["hidden"] for unit in units):
        raise InputError(f"--unit {max(units)}: the model has {settings['hidden']}")
    if path is not None:
        refuse({"data_dir": data_dir}, ["data_dir"], "with --input")
    if path is None:
        loaded = texts.load(settings["data"], settings["held_out"], data_dir)
        if loaded.digest != facts["digest"]:
            raise InputError(f"--run {run}: its text has changed; give one by --input")
        text = texts.decode(loaded.held_out[:20_000], vocabulary)
    else:
        text = data.read(path).replace("\r\n", "\n")[:20_000]
    strange = sorted(set(text) - set(vocabulary))
    if strange or not text:
        why = f"{strange[0]!r} is not a character it knows" if strange else "empty"
        raise InputError(f"--input {path}: {why}")
    tokens = jnp.asarray(texts.encode(text, vocabulary))
    c, forget = map(np.asarray, gates.read(model, tokens, layer=layer - 1))
    found = gates.telling(text, c)
    chosen = [Found("", unit, 0.0) for unit in units] or found[:5]
    make_folder(out)
    for what, unit, r in found:
        print(f"{what}: unit {unit}, correlation {r:.2f}")
    page = gates_page.write_gates(out, text, c, forget, chosen, facts, length)
    print(f"Report: {page}")
    return 0


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    title = "What is remembered, and for how long"
    how: Any = {"digits": DIGITS, "figures": pages.sweep_figures}
    return results.report(title, runs, results_file, out, pages.label, **how)
