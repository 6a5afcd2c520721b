"""The pages: the loss of a run; of all runs the places, and a figure."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.cells.data import title
from experiments.cells.settings import TAGGED, TEXTS, Settings
from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import grid, loss_figure, save_figure
from experiments.frame.results import Row, markdown, read_rows

NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "mgu": "MGU",
         "layer-norm-lstm": "layer-norm LSTM", "slstm": "sLSTM",
         "mingru": "minGRU"}  # fmt: skip
RATES = "rates.jsonl"  # every run of a ranking, with what was held out
BLUE = "#0b5394"


def label(settings: dict[str, Any]) -> str:
    return NAMES[settings["cell"]]


def score(task: str) -> str:
    """The name of what counts."""
    if task in TAGGED:
        return "accuracy"
    return "bits per character" if task in TEXTS else "squared error"


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the loss of a run."""
    settings = run.settings
    per = "squared error" if settings.task == "adding" else "nats"
    figure = loss_figure(run.facts, run.data.per_step, run.data.unit, per)
    name = f"{NAMES[settings.cell]}: {title(settings)}"
    return name, save_figure(figure, run.out / "loss.png")


def by_task(rows: list[Row]) -> dict[str, dict[str, list[Row]]]:
    """The rows of each cell by their task, the best cell first."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        task, cell = row["settings"]["task"], row["settings"]["cell"]
        found.setdefault(task, {}).setdefault(cell, []).append(row)
    order = lambda task: (
        lambda cell: (
            mean(found[task][cell], score(task)) * (-1 if task in TAGGED else 1)
        )
    )
    return {
        task: {cell: cells[cell] for cell in sorted(cells, key=order(task))}
        for task, cells in found.items()
    }


def values(rows: list[Row], name: str) -> list[float]:
    return [row["scores"][name] for row in rows]


def mean(rows: list[Row], name: str) -> float:
    return float(np.mean(values(rows, name)))


def shown(rows: list[Row], task: str) -> str:
    """The mean and the standard deviation over seeds."""
    found = values(rows, score(task))
    digits = 5 if task == "adding" else 3 if task in TEXTS else 2
    sd = f" ± {np.std(found, ddof=1):.{digits}f}" if len(found) > 1 else ""
    return f"{np.mean(found):.{digits}f}{sd}"


def ranking(rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """A line for each cell, the one whose places are least on average first."""
    found, lines = by_task(rows), []
    for cell in dict.fromkeys(row["settings"]["cell"] for row in rows):
        places, line = [], []
        for task, cells in found.items():
            if own := cells.get(cell):
                places.append(1 + [*cells].index(cell))
                ms = [row["cpu_ms"] for row in own if row["cpu_ms"]]
                time = f"{np.median(ms):.1f}" if ms else ""
                line += [f"{shown(own, task)} ({places[-1]})", time]
            else:
                line += ["", ""]
        lines.append([NAMES[cell], *line, f"{np.mean(places):.1f}"])
    lines.sort(key=lambda line: float(line[-1]))
    head = [part for task in found for part in (f"{task}, {score(task)}", "ms a step")]
    return ["cell", *head, "mean place"], lines


def ranking_figure(rows: list[Row]) -> Figure:
    """A panel for each task, the best cell on top: a dot for each seed, their mean."""
    found = by_task(rows)
    figure = Figure(figsize=(3.8 * len(found), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found)))
    for axes, (task, cells) in zip(panels, found.items(), strict=True):
        name = score(task)
        for y, own in enumerate(cells.values()):
            each = values(own, name)
            axes.plot(each, [y] * len(each), "o", color=BLUE, alpha=0.45, markersize=5)
            axes.plot(np.mean(each), y, "|", color=BLUE, markersize=16, mew=2)
        axes.set_yticks(range(len(cells)), [NAMES[cell] for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        unit = f"{name}, %" if task in TAGGED else name
        axes.set_xlabel(unit)
        settings = next(iter(cells.values()))[0]["settings"]
        name = title(Settings(**settings))
        axes.set_title(textwrap.fill(name, 26), size=10)
        if task == "adding":
            axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def searched(tried: list[Row], rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """The held-out losses of seed 0 by rate: * the rate chosen, † another diverged."""
    key = lambda row, *more: tuple(row["settings"][k] for k in ("task", "cell", *more))
    chosen = {key(row, "learning_rate") for row in rows}
    bad = {key(row, "learning_rate") for row in tried if row["held_out"] is None}
    rates = sorted({row["settings"]["learning_rate"] for row in tried})
    lines: dict[tuple[str, str], list[str]] = {}
    for row in tried:
        if row["settings"]["seed"]:
            continue
        line = lines.setdefault(key(row), [""] * len(rates))
        at = key(row, "learning_rate")
        mark = " *" if at in chosen else " †" if at in bad else ""
        loss = row["held_out"]
        line[rates.index(at[-1])] = "diverged" if loss is None else f"{loss:.3g}{mark}"
    named = [[task, NAMES[cell], *line] for (task, cell), line in lines.items()]
    return ["task", "cell", *(f"{rate:g}" for rate in rates)], named


def figures(out: Path, rows: list[Row], runs: Sequence[Path]) -> str:
    """The places of the cells, the figure of all, and the search for the rates."""
    head, lines = ranking(rows)
    about = "Mean ± standard deviation over seeds, the place of the cell in brackets; "
    about += "milliseconds of the processor for a step of training."
    print(f"\n{about}\n\n{markdown(head, lines)}")
    figure = save_figure(ranking_figure(rows), out / "ranking.png")
    body = f"<h2>Places</h2>\n<p>{about}</p>\n{grid(head, lines)}\n{figure}"
    if not (out / RATES).exists():
        return body
    head, lines = searched(read_rows(out / RATES, ("settings", "held_out")), rows)
    about = "Held-out loss of seed 0 at each learning rate: * the one chosen, † one at "
    about += "which another seed diverged."
    print(f"\n{about}\n\n{markdown(head, lines)}")
    return f"{body}\n<h2>Learning rates</h2>\n<p>{about}</p>\n{grid(head, lines)}"
