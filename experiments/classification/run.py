"""The commands: train, classify, report."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import data, fit, results
from experiments.checkpoint import make_folder
from experiments.classification import corpus, train
from experiments.classification.corpus import Corpus, Example
from experiments.classification.report import label, write_report
from experiments.classification.settings import (
    FEED_FORWARD,
    IMAGES,
    OF_RECURRENT,
    OF_TEXTS,
    TEXTS,
    Settings,
    defaults,
)
from experiments.errors import InputError, refuse

# what a checkpoint cannot go on with if it is changed
FIXED = ("data", "model", "pooling", "layers", "hidden", "embedding", "units",
         "least", "longest", "shuffled", "batch", "seed")  # fmt: skip


def run(
    given: dict[str, Any],
    out: Path,
    *,
    data_dir: Path | None,
    load: Callable[[Settings, Path | None], Corpus] = corpus.load,
    preset: Settings | None = None,
    **how: Any,
) -> int:
    """Trains, tests and reports; returns the exit code.

    `load(settings, data_dir)` gives the data; `preset` is what is not `given`, by
    default that of the data set.
    """
    loaded: Any = None

    def make(settings: Settings) -> tuple[fit.Fit, dict[str, Any]]:
        nonlocal loaded
        check(settings, {**given, "data_dir": data_dir})
        loaded = load(settings, data_dir)
        make_folder(out.parent)
        size = "" if loaded.vocabulary is None else (
            f"; a vocabulary of {len(loaded.vocabulary):,}"
        )  # fmt: skip
        print(
            f"{train.title(settings)}: {len(loaded.train):,} to train on, "
            f"{len(loaded.validation):,} held out, {len(loaded.test):,} to test, "
            f"{len(loaded.labels)} labels{size}."
        )
        return train.make(settings, loaded)

    preset = preset or defaults(given.get("data", Settings.data))
    done = fit.run(given, preset, FIXED, make, out, **how)
    if done is None:
        return 130
    trained, facts = done
    settings = trained.settings
    p = train.probabilities(trained.model, loaded.test, settings.batch)
    found = train.scores(p, loaded.test)
    name, digest = f"{train.title(settings)}, test", loaded.digests[1]
    result = fit.write_result(out, facts, name, digest, found)
    print(
        f"{name}: accuracy {found['accuracy']:.2f}%, macro F1 {found['macro F1']:.2f}, "
        f"of {len(loaded.test):,}; {facts['seconds'] / 60:.1f} minutes of training."
    )
    print(f"Report: {write_report(out, facts, result, trained.model, loaded, p)}")
    return 0


def check(settings: Settings, given: dict[str, Any]) -> None:
    """That the options belong to the data and the model."""
    name = settings.data
    if name in IMAGES:
        refuse(given, OF_TEXTS, f"with the data {name}")
    if name not in TEXTS and not name.startswith("mnist"):
        refuse(given, ["data_dir"], f"with the data {name}")
    if settings.model in FEED_FORWARD:
        refuse(given, OF_RECURRENT, f"with the model {settings.model}")


def classify(run: Path, path: Path | None) -> int:
    """Writes the likeliest label of each line, its probability, and the line."""
    model, settings, facts = fit.load(run, Settings, train.make_model)
    if facts["vocabulary"] is None:
        raise InputError(f"--run {run}: classifies images, not lines of text")
    index = {t: i for i, t in enumerate(facts["vocabulary"], corpus.UNKNOWN + 1)}

    def show(lines: list[str], size: int) -> None:
        encode = lambda line: corpus.encode(line, index, settings)
        examples = [Example(encode(line), 0, line) for line in lines]
        found = train.probabilities(model, examples, size)
        for line, p in zip(lines, found, strict=True):
            best = int(p.argmax())
            print(f"{facts['labels'][best]}\t{p[best]:.3f}\t{line}", flush=True)

    if path is None:
        for line in sys.stdin:
            show([line.rstrip("\n")], 1)
    elif lines := data.lines(path):
        show(lines, settings.batch)
    return 0


def report(runs: list[Path], results_file: Path | None, out: Path) -> int:
    return results.report("Classification", runs, results_file, out, label)
