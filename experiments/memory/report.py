"""Figures and pages: of a run, of a sweep, of the gradients."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.memory.settings import Settings
from experiments.memory.tasks import REMEMBERED, UNITS, Batch, baseline, solved
from experiments.page import grid, save_figure, table, versions, write_page
from experiments.results import groups

NAMES = {"rnn": "RNN (tanh)", "rnn-relu": "RNN (relu)", "irnn": "IRNN",
         "lstm": "LSTM", "gru": "GRU"}  # fmt: skip
BLUE, GREY = "#0b5394", "#999"
COLOURS = {"rnn": "#cc7a00", "rnn-relu": "#d4a017", "irnn": "#7a5c00",
           "lstm": "#0b5394", "gru": "#38761d"}  # fmt: skip
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
        y = [row["nats"] for row in facts[name]]
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


def write_run(
    out: Path, facts: dict[str, Any], result: dict[str, Any], said: Any, test: Batch
) -> Path:
    """The page of a run, with its figures, in the folder of the run."""
    settings = Settings(**facts["settings"])
    seen = facts["step"] * settings.batch
    figures = {"loss": loss_figure(facts, settings),
               "answers": answers_figure(said, test, settings.task)}  # fmt: skip
    shown = [save_figure(f, out / f"{name}.png") for name, f in figures.items()]
    body = f"""<p class="big">{said_of(result["scores"], settings)}</p>
<p>{seen:,} sequences seen in {facts["step"]:,} steps and
{facts["seconds"] / 60:.1f} minutes, compilation and evaluation included;
{facts["weights"]:,} weights.</p>
{"".join(shown)}
<h2>Settings</h2>
{table(facts["settings"])}
<h2>Versions and device</h2>
{table(versions())}"""
    heading = f"{label(facts['settings'])}: {result['title']}"
    return write_page(out / "report.html", heading, body)


def said_of(scores: dict[str, Any], settings: Settings) -> str:
    unit, n = UNITS[settings.task], scores["sequences until solved"]
    right = scores.get("symbols right")
    return (
        f"{unit} {scores[unit]:.5f} ({scores['without memory']:.4f} without memory"
        + (f"; {right:.1f}% of the symbols right" if right is not None else "")
        + (f"); solved after {n:,} sequences." if n else "); not solved.")
    )


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
    """Error against length, and sequences until solved against length."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    named = by_length(rows)
    mean = lambda group, score: np.mean([row["scores"][score] for row in group])
    unit, until = UNITS[task], "sequences until solved"
    for name, lengths in named.items():
        how = style(next(iter(lengths.values()))[0]["settings"], name)
        y = [mean(group, unit) for group in lengths.values()]
        left.plot([*lengths], y, **how)
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


def sweep_figures(out: Path, rows: list[dict[str, Any]]) -> str:
    """What stands under the tables of several runs."""
    parts = []
    for task in sorted({row["settings"]["task"] for row in rows}):
        own = [row for row in rows if row["settings"]["task"] == task]
        figure = save_figure(length_figure(task, own), out / f"length-{task}.png")
        title = f"<h2>Where each stops: {html.escape(task)}</h2>"
        parts += [title, where_it_ends(own), figure]
    return "\n".join(parts)


def gradient_figure(rows: list[dict[str, Any]]) -> Figure:
    """Norms against the distance, at the start and after training."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    dashes = {0.0: ":", 1.0: "-", 3.0: "--"}
    low = 1e-8
    for axes, when in zip(panels, ("at initialisation", "after training"), strict=True):
        for row in (row for row in rows if row["when"] == when):
            settings = row["settings"]
            chrono = settings["span"] is not None
            dash = "-." if chrono else dashes.get(settings["forget_bias"], "-")
            y = np.maximum(row["h"], low / 10)
            axes.plot(y, dash, color=COLOURS[settings["cell"]], label=row["model"])
        axes.set_yscale("log")
        tidy(axes, xlabel="steps between, $T - t$", title=when)
    top = max(max(row["h"]) for row in rows)
    panels[0].set_ylim(low, 10 * max(1.0, min(top, 1e6)))
    panels[0].set_ylabel(r"$\|\partial h_T / \partial h_t\|_F\,/\,\sqrt{H}$")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=4)
    return figure


def write_gradients(out: Path, rows: list[dict[str, Any]], settings: Settings) -> Path:
    figure = save_figure(gradient_figure(rows), out / "gradients.png")
    T = settings.length
    at = sorted({1, 10, T // 2, T} & {*range(1, T + 1)})
    head = ["model", "when", "of", *(f"{k} steps" for k in at), "error in the test"]
    lines = [
        [row["model"], row["when"], name, *(f"{row[of][k]:.1e}" for k in at),
         "" if row["error"] is None else f"{row['error']:.4f}"]
        for row in rows
        for of, name in (("h", "h"), ("state", "(h, c)"))
        if of == "h" or row["settings"]["cell"] == "lstm"
    ]  # fmt: skip
    body = f"""<p>How much of a gradient with respect to the last hidden state is left
after so many steps: the Frobenius norm of ∂h<sub>T</sub>/∂h<sub>t</sub> over the root
of the width, the mean of {rows[0]["sequences"]} sequences of the problem of
{settings.task}, {T} steps. Of an LSTM, h by h with the cell held fixed, in the figure,
and the whole state (h, c) by (h, c), in the table.</p>
{figure}
{grid(head, lines)}
<h2>Settings</h2>
{
        table(
            {
                "steps of training": settings.steps,
                "hidden": settings.hidden,
                "batch": settings.batch,
                "seed": settings.seed,
            }
        )
    }
<h2>Versions and device</h2>
{table(versions())}"""
    return write_page(out / "report.html", "What vanishes: gradients", body)
