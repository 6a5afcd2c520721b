"""The figure of several runs: accuracy of each model on each task."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.classification.page import NAMES, label
from experiments.frame.page import save_figure
from experiments.frame.results import groups
from experiments.order.settings import BINARY, MODELS

COLOURS = {"each": "#d8c3a5", "bag": "#b08d57", "rnn": "#9ab", "lstm": "#0b5394",
           "gru": "#6a9f58"}  # fmt: skip


def mean_accuracy(group: list[dict[str, Any]]) -> float:
    return float(np.mean([row["scores"]["accuracy"] for row in group]))


def accuracies(rows: list[dict[str, Any]]) -> Figure:
    """Bars of each model, tasks beside each other.

    Of several seeds a bar is the mean, and a line on it goes from least to greatest.
    """
    titles = [*dict.fromkeys(row["title"] for row in rows)]
    model_of = lambda group: group[0]["settings"]["model"]
    size = max(6.0, 2.2 * len(titles) + 1.6), 4
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    named: dict[str, Any] = {}
    for at, title in enumerate(titles):
        found = groups((row for row in rows if row["title"] == title), label)
        bars = sorted(found.items(), key=lambda bar: MODELS.index(model_of(bar[1])))
        width, met = 0.84 / len(bars), set()
        for i, (name, group) in enumerate(bars):
            model, y = model_of(group), mean_accuracy(group)
            x = at + (i - (len(bars) - 1) / 2) * width
            # other settings of the same model are lighter
            how = {"color": COLOURS[model], "alpha": 0.5 if model in met else 1.0}
            text = name if model in met else NAMES[model]
            met.add(model)
            named.setdefault(text, axes.bar(x, y, 0.92 * width, **how))
            each = [row["scores"]["accuracy"] for row in group]
            if len(each) > 1:
                axes.vlines(x, min(each), max(each), color="#222", linewidth=1.2)
            top = max(each) + 1
            axes.text(x, top, f"{y:.0f}", ha="center", size=8, color="#444")
    if all(row["settings"]["data"] in BINARY for row in rows):
        line = axes.axhline(50, color="#222", linewidth=1, linestyle=":")
        named = {"chance": line, **named}
    names = [textwrap.fill(title.removesuffix(", test"), 16) for title in titles]
    axes.set_xticks(range(len(titles)), names)
    axes.set(ylabel="accuracy on the test, %", ylim=(0, 109))
    axes.tick_params(axis="x", length=0)
    how = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    axes.legend(named.values(), named.keys(), **how)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def figures(out: Path, rows: list[dict[str, Any]], runs: Any) -> str:
    return save_figure(accuracies(rows), out / "accuracy.png")
