"""The figure: accuracy of each model on each task."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.classification.report import NAMES
from experiments.order.settings import BINARY, MODELS

COLOURS = {"each": "#d8c3a5", "bag": "#b08d57", "rnn": "#9ab", "lstm": "#0b5394",
           "gru": "#6a9f58"}  # fmt: skip


def accuracies(rows: list[dict[str, Any]]) -> Figure:
    """Bars of each model, tasks beside each other; the mean of several seeds."""
    titles = [*dict.fromkeys(row["title"] for row in rows)]
    models = [m for m in MODELS if any(r["settings"]["model"] == m for r in rows)]
    size = max(6.0, 2.2 * len(titles) + 1.6), 4
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    width = 0.84 / len(models)
    for i, model in enumerate(models):
        for at, title in enumerate(titles):
            own = [
                row["scores"]["accuracy"]
                for row in rows
                if row["title"] == title and row["settings"]["model"] == model
            ]
            if not own:
                continue
            x, y = at + (i - (len(models) - 1) / 2) * width, float(np.mean(own))
            name = NAMES[model] if at == 0 else None
            axes.bar(x, y, 0.92 * width, color=COLOURS[model], label=name)
            axes.text(x, y + 1, f"{y:.0f}", ha="center", size=8, color="#444")
    if all(row["settings"]["data"] in BINARY for row in rows):
        axes.axhline(50, color="#222", linewidth=1, linestyle=":", label="chance")
    names = [textwrap.fill(title.removesuffix(", test"), 16) for title in titles]
    axes.set_xticks(range(len(titles)), names)
    axes.set(ylabel="accuracy on the test, %", ylim=(0, 109))
    axes.tick_params(axis="x", length=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
