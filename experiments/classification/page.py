"""The page of a run: accuracy, confusions, and what the model looked at."""

import html
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from experiments.classification.data import Example, bucketed, tokens
from experiments.classification.model import Classifier
from experiments.classification.settings import Settings
from experiments.frame import buckets
from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import confusion_figure, grid, loss_figure, save_figure

NAMES = {"rnn": "RNN", "lstm": "LSTM", "bilstm": "BiLSTM", "gru": "GRU",
         "each": "each input alone", "bag": "bag of inputs"}  # fmt: skip


def label(settings: dict[str, Any]) -> str:
    name = NAMES[settings["model"]]
    if settings["model"] in ("each", "bag"):
        return name
    return f"{name}, {settings['pooling']}"


def confusions(truth: Any, said: Any, labels: list[str]) -> Figure:
    counts = confusion_matrix(truth, said, labels=range(len(labels)))
    names = {"xlabel": "answer", "ylabel": "truth"}
    return confusion_figure(counts, labels, labels, **names)


def images_figure(
    test: list[Example], p: np.ndarray, rows: list[int], labels: list[str]
) -> Figure:
    """Images that were misread, with the answer and the truth."""
    figure = Figure(figsize=(8, 1.5), layout="constrained")
    for axes, row in zip(figure.subplots(1, 10).flat, rows[:10], strict=False):
        example = test[row]
        side = round(example.x.size**0.5)
        axes.imshow(example.x.reshape(side, side), cmap="gray_r")
        answer = labels[int(p[row].argmax())]
        axes.set_title(f"{answer}, not {labels[example.label]}", size=9)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def coloured(model: Classifier, settings: Settings, examples: list[Example]) -> str:
    """Texts, each token the darker the more attention it got."""
    run = nnx.jit(lambda model, batch: model.weights(batch.x, batch.lengths))
    lines = [""] * len(examples)
    for batch, places in buckets.once(bucketed(examples, 1)):
        weights = np.asarray(run(model, batch))[0]
        example = examples[places[0]]
        read = tokens(example.text, settings)[: settings.longest]
        space = " " if settings.units == "words" else ""
        marks = [
            f'<span style="background:rgba(11,83,148,{w / weights.max():.2f});'
            f'color:{"#fff" if w > 0.6 * weights.max() else "#222"}">'
            f"{html.escape(token)}</span>"
            for token, w in zip(read, weights, strict=False)
        ]
        lines[places[0]] = f"<p>{space.join(marks)}</p>"
    return "\n".join(lines)


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures and tables of a run."""
    settings, p, test = run.settings, evaluation.answers, run.data.tests["test"]
    labels, texts = run.facts["labels"], run.facts["vocabulary"] is not None
    truth, said = np.array([e.label for e in test]), p.argmax(-1)
    wrong = sorted(np.flatnonzero(truth != said).tolist(), key=lambda i: -p[i].max())
    loss = loss_figure(run.facts, settings.batch, "examples", "example")
    parts = [
        save_figure(confusions(truth, said, labels), run.out / "confusion.png"),
        save_figure(loss, run.out / "loss.png"),
    ]
    if wrong and not texts and "permuted" not in settings.data:
        figure = images_figure(test, p, wrong, labels)
        parts += ["<h2>Misread</h2>", save_figure(figure, run.out / "misread.png")]
    if texts:
        if run.model.attend is not None:
            shown = test[:: max(1, len(test) // 10)][:10]
            shown = coloured(run.model, settings, shown)
            parts.append(f"<h2>What got attention</h2>\n{shown}")
        rows = [
            [labels[said[i]], f"{p[i].max():.2f}", labels[truth[i]], test[i].text]
            for i in wrong[:12]
        ]
        parts.append("<h2>Wrong, and sure of it</h2>")
        parts.append(grid(["answer", "probability", "truth", "text"], rows))
    title = f"{label(asdict(settings))}: {Path(settings.data).name}"
    return title, "\n".join(parts)
