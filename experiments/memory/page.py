"""Figures: of a run, and of several, at several lengths."""

import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import grid, save_figure
from experiments.frame.results import groups
from experiments.memory.data import REMEMBERED, UNITS, Batch, baseline, solved, title
from experiments.memory.settings import Settings

NAMES = {"rnn": "RNN (tanh)", "rnn-relu": "RNN (relu)", "irnn": "IRNN",
         "indrnn": "IndRNN", "lstm": "LSTM", "gru": "GRU"}  # fmt: skip
BLUE, GREY = "#0b5394", "#999"
COLOURS = {"rnn": "#cc7a00", "rnn-relu": "#d4a017", "irnn": "#7a5c00",
           "indrnn": "#990055", "lstm": "#0b5394", "gru": "#38761d"}  # fmt: skip
# Hochreiter and Schmidhuber, 1997, table 7: length, sequences until solved
LSTM_1997 = ((100, 74_000), (500, 209_000), (1000, 853_000))
# Bai, Kolter and Koltun, 2018: length, what the test gave
BAI_2018 = {
    "adding": {"rnn": (600, 0.177), "lstm": (600, 0.164), "gru": (600, 5.3e-5)},
    "copy": {"rnn": (1000, 0.0202), "lstm": (1000, 0.0204), "gru": (1000, 0.0197)},
}


def label(settings: dict[str, Any]) -> str:
    """The cell, and how it began if that is told of it."""
    name = NAMES[settings["cell"]]
    if settings["span"] is not None:
        at = settings["span"] == settings["length"]
        return f"{name}, chrono" + ("" if at else f" {settings['span']}")
    if settings["forget_bias"] != Settings.forget_bias:
        return f"{name}, forget bias {settings['forget_bias']:g}"
    return name


def tidy(axes: Any, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def marks(axes: Any, task: str, T: int) -> None:
    """Lines for what needs no memory and for what counts as solved."""
    for y, text in ((baseline(task, T), "without memory"), (solved(task, T), "solved")):
        axes.axhline(y, color=GREY, linestyle=":", linewidth=1)
        place = {"xytext": (-4, 3), "textcoords": "offset points", "ha": "right"}
        across = axes.get_yaxis_transform()
        axes.annotate(text, (1, y), xycoords=across, color="#666", size=9, **place)


def loss_figure(facts: dict[str, Any], settings: Settings) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    series = (("train", "training", "#9ab", "-"), ("held_out", "held out", BLUE, "o-"))
    for name, text, colour, style in series:
        x = [row["step"] * settings.batch / 1e3 for row in facts[name]]
        y = [row["loss"] for row in facts[name]]
        axes.plot(x, y, style, color=colour, label=text, markersize=4)
    axes.set_yscale("log")
    marks(axes, settings.task, settings.length)
    tidy(axes, xlabel="sequences seen, thousands", ylabel=UNITS[settings.task])
    axes.legend(frameon=False, loc="lower left")
    return figure


def answers_figure(said: np.ndarray, test: Batch, task: str) -> Figure:
    """Sums said against true ones, or how often each of the ten symbols is right."""
    figure = Figure(figsize=(4.4, 3.8), layout="constrained")
    axes = figure.subplots()
    if task == "adding":
        axes.plot([0, 2], [0, 2], color=GREY, linewidth=1)
        axes.plot(test.y[:500], said[:500, 0], ".", color=BLUE, markersize=4)
        tidy(axes, xlabel="sum", ylabel="answer")
    else:
        y = test.y[:, -REMEMBERED:]
        right = 100 * (said[:, -REMEMBERED:].argmax(-1) == y).mean(0)
        axes.bar(range(1, REMEMBERED + 1), right, color=BLUE)
        axes.axhline(12.5, color=GREY, linestyle=":")
        tidy(axes, xlabel="symbol", ylabel="right, %")
        axes.set_ylim(0, 100)
    return figure


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures of a run."""
    settings, (said, test) = run.settings, evaluation.answers
    figures = {"loss": loss_figure(run.facts, settings),
               "answers": answers_figure(said, test, settings.task)}  # fmt: skip
    shown = [save_figure(f, run.out / f"{name}.png") for name, f in figures.items()]
    return f"{label(asdict(settings))}: {title(settings)}", "".join(shown)


def by_length(rows: list[dict[str, Any]]) -> dict[str, dict[int, list[Any]]]:
    """Rows of one task by what they are of but their length, then by their length."""
    without = []
    for row in rows:
        settings, T = row["settings"], row["settings"]["length"]
        span = "T" if settings["span"] == T else settings["span"]
        own = {**settings, "span": span, "length": "T"}
        without.append({**row, "settings": own, "length": T})
    found: dict[str, dict[int, list[Any]]] = {}
    for name, group in groups(without, label).items():
        lines = found.setdefault(name, {})
        for row in sorted(group, key=lambda row: row["length"]):
            lines.setdefault(row["length"], []).append(row)
    return found


def style(settings: dict[str, Any], name: str) -> dict[str, Any]:
    line, marker, fill = "-", "o", "full"
    if settings["span"] is not None:
        line, fill = "--", "none"
    elif settings["forget_bias"] != Settings.forget_bias:
        line, marker = ":", "s"
    return {"color": COLOURS[settings["cell"]], "linestyle": line, "marker": marker,
            "markersize": 4, "fillstyle": fill, "label": name}  # fmt: skip


def length_figure(task: str, rows: list[dict[str, Any]]) -> Figure:
    """Error against length, and sequences until solved against length.

    Of several seeds it is the mean, in a band from the least to the greatest.
    """
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    named = by_length(rows)
    mean = lambda group, score: np.mean([row["scores"][score] for row in group])
    unit, until = UNITS[task], "sequences until solved"
    for name, lengths in named.items():
        how = style(next(iter(lengths.values()))[0]["settings"], name)
        y = [mean(group, unit) for group in lengths.values()]
        left.plot([*lengths], y, **how)
        each = [[row["scores"][unit] for row in group] for group in lengths.values()]
        if max(map(len, each)) > 1:
            ends = [*map(min, each)], [*map(max, each)]
            left.fill_between([*lengths], *ends, color=how["color"], alpha=0.15)
        there = {T: mean(group, until) for T, group in lengths.items()
                 if all(row["scores"][until] for row in group)}  # fmt: skip
        right.plot([*there], [*there.values()], **how)
    for cell, (T, error) in BAI_2018[task].items():
        colour = COLOURS[cell]
        left.plot(T, error, "x", color=colour, label=f"{NAMES[cell]}, Bai 2018")
    own = sorted({T for lengths in named.values() for T in lengths})
    published = {T for T, _ in BAI_2018[task].values()}
    across = {*own, *published}
    grey = {"color": GREY, "linestyle": ":", "linewidth": 1}
    x = np.geomspace(min(across), max(across), 50)
    left.plot(x, [baseline(task, T) for T in x], label="without memory", **grey)
    left.plot(x, [solved(task, T) for T in x], color="#666", linestyle="-.",
              linewidth=1, label="counts as solved")  # fmt: skip
    if task == "adding":
        text = "LSTM, Hochreiter and\nSchmidhuber 1997"
        right.plot(*zip(*LSTM_1997, strict=True), "x", color="black", label=text)
    of_1997 = {T for T, _ in LSTM_1997} if task == "adding" else set()
    for axes, more in ((left, published), (right, of_1997)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks: list[int] = []
        for T in sorted({*own, *more}):  # those apart enough to be written
            ticks += [T] if not ticks or T > 1.25 * ticks[-1] else []
        axes.set_xticks(ticks, [*map(str, ticks)], size=9, rotation=45)
        low, high = axes.get_ylim()
        if high < 30 * low:  # few powers of ten
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        axes.minorticks_off()
    tidy(left, xlabel="length", ylabel=f"{unit} in the test")
    tidy(right, xlabel="length", ylabel=until)
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9,
                  loc="outside lower center", ncols=4)  # fmt: skip
    if task == "adding":
        handle = right.get_lines()[-1]
        right.legend([handle], [handle.get_label()], fontsize=9)
    return figure


def where_it_ends(rows: list[dict[str, Any]]) -> str:
    """The longest problem that each solved, of those it was given."""
    lines = []
    for name, lengths in by_length(rows).items():
        done = [
            T
            for T, group in lengths.items()
            if all(row["scores"]["sequences until solved"] for row in group)
        ]
        failed = [T for T in lengths if T not in done]
        lines.append([name, max(done, default="none"), min(failed, default="none")])
    head = ["model", "longest that it solved", "shortest that it did not"]
    return grid(head, lines)


def figures(out: Path, rows: list[dict[str, Any]], runs: Sequence[Path]) -> str:
    """What stands under the tables of several runs."""
    parts = []
    for task in sorted({row["settings"]["task"] for row in rows}):
        own = [row for row in rows if row["settings"]["task"] == task]
        figure = save_figure(length_figure(task, own), out / f"length-{task}.png")
        title = f"<h2>Where each stops: {html.escape(task)}</h2>"
        parts += [title, where_it_ends(own), figure]
    return "\n".join(parts)
