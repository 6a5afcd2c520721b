"""The page of one run: accuracy, confusions, and what the model looked at."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from experiments import buckets
from experiments.classification import corpus
from experiments.classification.corpus import Corpus
from experiments.classification.model import Classifier
from experiments.classification.settings import Settings
from experiments.classification.train import bucketed
from experiments.page import (
    confusion_figure,
    grid,
    loss_figure,
    save_figure,
    table,
    versions,
    write_page,
)

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


def images_figure(loaded: Corpus, p: np.ndarray, rows: list[int]) -> Figure:
    """Images that were misread, with the answer and the truth."""
    figure = Figure(figsize=(8, 1.5), layout="constrained")
    for axes, row in zip(figure.subplots(1, 10).flat, rows[:10], strict=False):
        example = loaded.test[row]
        side = round(example.x.size**0.5)
        axes.imshow(example.x.reshape(side, side), cmap="gray_r")
        answer = loaded.labels[int(p[row].argmax())]
        axes.set_title(f"{answer}, not {loaded.labels[example.label]}", size=9)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def coloured(model: Classifier, loaded: Corpus, settings: Settings, rows: list) -> str:
    """Texts, each token the darker the more attention it got."""
    examples = [loaded.test[row] for row in rows]
    run = nnx.jit(lambda model, batch: model.weights(batch.x, batch.lengths))
    lines = [""] * len(rows)
    for batch, places in buckets.once(bucketed(examples, 1)):
        weights = np.asarray(run(model, batch))[0]
        example = examples[places[0]]
        tokens = corpus.tokens(example.text, settings)[: settings.longest]
        space = " " if settings.units == "words" else ""
        marks = [
            f'<span style="background:rgba(11,83,148,{w / weights.max():.2f});'
            f'color:{"#fff" if w > 0.6 * weights.max() else "#222"}">'
            f"{html.escape(token)}</span>"
            for token, w in zip(tokens, weights, strict=False)
        ]
        lines[places[0]] = f"<p>{space.join(marks)}</p>"
    return "\n".join(lines)


def write_report(
    out: Path,
    facts: dict[str, Any],
    result: dict[str, Any],
    model: Classifier,
    loaded: Corpus,
    p: np.ndarray,
) -> Path:
    """The page of a run, with its figures, in the folder of the run."""
    settings = facts["settings"]
    truth, said = np.array([e.label for e in loaded.test]), p.argmax(-1)
    wrong = sorted(np.flatnonzero(truth != said).tolist(), key=lambda i: -p[i].max())
    texts = loaded.vocabulary is not None
    parts = []
    if wrong and not texts and "permuted" not in settings["data"]:
        figure = images_figure(loaded, p, wrong)
        parts += ["<h2>Misread</h2>", save_figure(figure, out / "misread.png")]
    if texts:
        if settings["pooling"] == "attention" and model.attend is not None:
            rows = [*range(0, len(truth), max(1, len(truth) // 10))][:10]
            shown = coloured(model, loaded, Settings(**settings), rows)
            parts.append(f"<h2>What got attention</h2>\n{shown}")
        names = loaded.labels
        rows = [
            [names[said[i]], f"{p[i].max():.2f}", names[truth[i]], loaded.test[i].text]
            for i in wrong[:12]
        ]
        parts.append("<h2>Wrong, and sure of it</h2>")
        parts.append(grid(["answer", "probability", "truth", "text"], rows))
    found = result["scores"]
    body = f"""<p class="big">{html.escape(result["title"])}: accuracy
<b>{found["accuracy"]:.2f}%</b>, macro F1 <b>{found["macro F1"]:.2f}</b>, of
{len(truth):,}.</p>
<p>{facts["step"]:,} steps in {facts["seconds"] / 60:.1f} minutes, compilation and
evaluation included; {facts["weights"]:,} weights.</p>
{save_figure(confusions(truth, said, loaded.labels), out / "confusion.png")}
{
        save_figure(
            loss_figure(facts, settings["batch"], "examples", "example"),
            out / "loss.png",
        )
    }
{"".join(parts)}
<h2>Settings</h2>
{table(settings)}
<h2>Versions and device</h2>
{table(versions())}"""
    title = f"{label(settings)}: {Path(settings['data']).name}"
    return write_page(out / "report.html", title, body)
