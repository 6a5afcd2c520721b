"""The page: what a step costs, that steps wait for each other, what length needs."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.cost.settings import MODELS, step_flops
from experiments.frame.errors import InputError
from experiments.frame.page import grid, save_figure, write_page
from experiments.frame.results import markdown

Row = dict[str, Any]
Value = Callable[[Row], float | None]
NAMES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM",
         "transformer": "Transformer layer", "remat": "LSTM, remat"}  # fmt: skip
COLOURS = {"rnn": "#9ab", "gru": "#6a9f58", "lstm": "#0b5394",
           "transformer": "#b45f06", "remat": "#0b5394"}  # fmt: skip
ORDER = ("rnn", "gru", "lstm", "remat", "transformer")


def curve_of(row: Row) -> str:
    return "remat" if row["remat"] else row["model"]


def per_step_us(row: Row) -> float | None:
    return row["median_ms"] and 1e3 * row["median_ms"] / row["T"]


def step_mflop(row: Row) -> float:
    return row["gflop"] * 1e3 / (row["B"] * row["T"])


def per_sequence_ms(row: Row) -> float | None:
    return row["median_ms"] and row["median_ms"] / row["B"]


def milliseconds(row: Row) -> float | None:
    return row["median_ms"]


def megabytes(row: Row) -> float | None:
    return row["temp_mb"]


def curves(axes: Any, rows: list[Row], at: str, value: Value, label: str) -> None:
    """A line for each layer, over T or B, of which each is twice the one before."""
    for name in ORDER:
        points = sorted((r[at], value(r)) for r in rows if curve_of(r) == name)
        points = [(x, y) for x, y in points if y is not None]
        if points:
            style = {"linestyle": "--" if name == "remat" else "-", "marker": "o"}
            style |= {"color": COLOURS[name], "label": NAMES[name], "markersize": 4}
            axes.plot(*zip(*points, strict=True), **style)
    ticks = sorted({row[at] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.set_xticks([], minor=True)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,))
    )
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}")
    axes.yaxis.set_minor_formatter(lambda y, _: "")
    axes.set(xlabel={"T": "steps T", "B": "sequences B"}[at], title=label)
    axes.title.set_size(10.5)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def pair(left: tuple, right: tuple) -> Figure:
    """Two panels, each of rows, what is along x, the value, and its name."""
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, panel in zip(panels, (left, right), strict=True):
        curves(axes, *panel)
    named = {}
    for axes in panels:
        named |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    how = {"loc": "outside lower center", "ncols": len(named), "frameon": False}
    figure.legend(named.values(), named.keys(), **how)
    return figure


def cross(rows: list[Row], at: str, value: Value, digits: int = 3) -> tuple[list, list]:
    """A table: a line for each layer, a column for each T or B."""
    columns = sorted({row[at] for row in rows})
    found = {(curve_of(row), row[at]): value(row) for row in rows}
    if len(found) < len(rows):
        raise InputError(
            "--results: rows of several --batch or --lengths; give each an --out"
        )
    shown = lambda y: "" if y is None else number(y, digits)
    lines = [
        [NAMES[name], *(shown(found.get((name, x))) for x in columns)]
        for name in ORDER
        if any(curve_of(row) == name for row in rows)
    ]
    return ["layer", *(f"{at} = {x:,}" for x in columns)], lines


def number(y: float, digits: int) -> str:
    """To a few digits, never as a power of ten."""
    rounded = float(f"{y:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def weights_table(rows: list[Row]) -> tuple[list, list]:
    H, longest = rows[0]["H"], max(row["T"] for row in rows)
    first = {row["model"]: row["weights"] for row in rows}
    line = lambda m, T: number(step_flops(m, T, H) / 1e6, 3)
    shortest = min(row["T"] for row in rows)
    head = ["layer", "weights", f"T = {shortest:,}", f"T = {longest:,}"]
    lines = [
        [NAMES[m], f"{first[m]:,}", line(m, shortest), line(m, longest)]
        for m in MODELS
        if m in first
    ]
    return head, lines


def sections(rows: list[Row]) -> list[tuple[str, str, list, tuple, tuple]]:
    """Of each part: its name, what it says, its tables, the panels of its figure."""
    part = lambda name: [row for row in rows if row["part"] == name]
    length, tokens, batch, long = map(part, ("length", "tokens", "batch", "long"))
    forward = [row for row in length if row["mode"] == "forward"]
    gradient = [row for row in length if row["mode"] == "gradient"]
    found = []
    if length:
        B, H = length[0]["B"], length[0]["H"]
        text = f"""Layers of width {H} over {B} sequences of that width. The maps of the
Transformer's are to twice the width, so it has as many weights as the LSTM. Operations
are those of the matrix products."""
        tables = [
            ("millions of operations a step, forward", weights_table(forward)),
            ("forward, ms", cross(forward, "T", milliseconds)),
            ("forward and backward, ms", cross(gradient, "T", milliseconds)),
        ]
        panels = (gradient, "T", per_step_us, "forward and backward, µs a step")
        left = forward, "T", step_mflop, "operations of one step, millions"
        found.append(("More arithmetic in every step", text, tables, left, panels))
    if tokens and batch:
        n, T = tokens[0]["B"] * tokens[0]["T"], batch[0]["T"]
        text = f"""On the left as much data in all, {n:,} steps, cut into sequences of
length T. On the right more sequences of {T} steps side by side: a step has to wait for
the one before, so few sequences leave the device idle."""
        tables = [
            (f"forward, {n:,} steps in all, ms", cross(tokens, "T", milliseconds)),
            (f"forward, T = {T}, ms", cross(batch, "B", milliseconds)),
        ]
        left = tokens, "T", milliseconds, f"{n:,} steps in all, ms"
        right = batch, "B", per_sequence_ms, f"T = {T}: ms a sequence"
        found.append(("One step after another", text, tables, left, right))
    if long:
        H, B = long[0]["H"], long[0]["B"]
        text = f"""Temporary memory and time of the gradient, width {H}, {B} sequences.
With remat only every K-th state is kept, K near √T, and the steps between are run once
more. What would need too much memory was compiled and not run."""
        tables = [
            ("temporary memory of the gradient, MB", cross(long, "T", megabytes)),
            ("its time, ms", cross(long, "T", milliseconds)),
        ]
        left = long, "T", megabytes, "temporary memory of the gradient, MB"
        right = long, "T", milliseconds, "its time, ms"
        found.append(("Very long inputs", text, tables, left, right))
    return found


def write_report(out: Path, rows: list[Row]) -> Path:
    """Prints the tables; writes the page and its figures."""
    parts = []
    shape = lambda row: (row["device"], row["H"], row["rounds"])
    for device, H, rounds in dict.fromkeys(map(shape, rows)):
        own = [row for row in rows if shape(row) == (device, H, rounds)]
        turns = f"medians of {rounds} rounds in which all layers take turns"
        parts.append(f"<p>{html.escape(device)}: width {H}, {turns}.</p>")
        for i, (name, text, tables, *panels) in enumerate(sections(own), 1):
            parts.append(f"<h2>{name}</h2><p>{text}</p>")
            path = out / f"cost-{i}-{device}-{H}-{rounds}.png"
            parts.append(save_figure(pair(*panels), path))
            for title, (head, lines) in tables:
                print(f"\n{name}: {title}\n\n{markdown(head, lines)}")
                parts.append(f"<p>{title}</p>{grid(head, lines)}")
    return write_page(out / "report.html", "What an LSTM costs", "\n".join(parts))
