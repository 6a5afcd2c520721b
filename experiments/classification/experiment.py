"""The experiment: what its parts are, how well a model answers, and `classify`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from sklearn.metrics import f1_score

from experiments import datasets
from experiments.classification import data, model, page
from experiments.classification.data import Example
from experiments.classification.model import Classifier
from experiments.classification.settings import (
    FEED_FORWARD,
    IMAGES,
    OF_RECURRENT,
    OF_TABLES,
    OF_TEXTS,
    TEXTS,
    Settings,
    preset,
)
from experiments.frame import buckets
from experiments.frame.errors import InputError, refuse
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, load


def check(settings: Settings, given: dict[str, Any]) -> None:
    """That the options belong to the data and the model."""
    name = settings.data
    if name in IMAGES:
        refuse(given, OF_TEXTS, f"with the data {name}")
    if not Path(name).is_file():
        refuse(given, OF_TABLES, f"with the data {name}")
    if name not in TEXTS and not name.startswith("mnist"):
        refuse(given, ["data_dir"], f"with the data {name}")
    if settings.model in FEED_FORWARD:
        refuse(given, OF_RECURRENT, f"with the model {settings.model}")


@nnx.jit
def softmax(model: Classifier, batch: Any) -> jax.Array:
    return jax.nn.softmax(model(batch.x, batch.lengths))


def probabilities(model: Classifier, examples: list[Example], size: int) -> np.ndarray:
    """Of each label for each example, `(N, K)`."""
    found: list[Any] = [None] * len(examples)
    for batch, rows in buckets.once(data.bucketed(examples, size)):
        for row, p in zip(rows, np.asarray(softmax(model, batch)), strict=False):
            found[row] = p
    return np.array(found)


def scores(p: np.ndarray, examples: list[Example]) -> dict[str, float]:
    truth, said = np.array([e.label for e in examples]), p.argmax(-1)
    return {
        "accuracy": 100 * float((truth == said).mean()),
        "macro F1": 100 * float(f1_score(truth, said, average="macro")),
    }


def evaluate(run: Run) -> Evaluation:
    test = run.data.tests["test"]
    p = probabilities(run.model, test, run.settings.batch)
    found, title = scores(p, test), f"{data.title(run.settings)}, test"
    headline = (
        f"{title}: accuracy **{found['accuracy']:.2f}%**, macro F1 "
        f"**{found['macro F1']:.2f}**, of {len(test):,}."
    )
    return Evaluation([Result(title, run.data.digests["test"], found)], headline, p)


EXPERIMENT = Experiment("Classification", preset, data, model, page, evaluate, check)


def classify(run: Path, input: Path | None) -> int:
    """Writes the likeliest label of each line, its probability, and the line."""
    _, settings, facts, model, *_ = load(EXPERIMENT, run)
    if facts["vocabulary"] is None:
        raise InputError(f"--run {run}: classifies images, not lines of text")
    index = {t: i for i, t in enumerate(facts["vocabulary"], data.UNKNOWN + 1)}

    def show(lines: list[str], size: int) -> None:
        encode = lambda line: data.encode(line, index, settings)
        examples = [Example(encode(line), 0, line) for line in lines]
        found = probabilities(model, examples, size)
        for line, p in zip(lines, found, strict=True):
            best = int(p.argmax())
            print(f"{facts['labels'][best]}\t{p[best]:.3f}\t{line}", flush=True)

    if input is None:
        for line in datasets.typed():
            show([line], 1)
    elif lines := datasets.lines(input):
        show(lines, settings.batch)
    return 0
