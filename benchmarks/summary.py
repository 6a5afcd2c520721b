"""The ratios of the front page: medians over the shapes, a panel for each device."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.cases import BOTH, OPS
from benchmarks.figure import LOOKS, OTHER, decorate, lines
from benchmarks.rows import Row, contenders_of, ratios


def draw_summary(runs: list[list[Row]], path: Path) -> None:
    """Of each run, the rows of one layer over whole sequences in float32."""
    every = [row for rows in runs for row in rows]
    figure = Figure(figsize=(1.2 + 3 * len(runs), 4.4), layout="constrained")
    axes: Any = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)
    for ax, rows in zip(axes[0], runs, strict=True):
        panel(ax, rows)
        ax.set_title(rows[0]["device"] if rows else "")
    decorate(figure, every, axes)
    text = "time over jaxseq's: median of the shapes, lowest to highest (log scale)"
    figure.supxlabel(text, fontsize="medium")
    figure.savefig(path, dpi=150)


def panel(ax: Any, rows: list[Row]) -> None:
    names = [name for name in contenders_of(rows) if name != "jaxseq"]
    both = [(op, mode) for mode in reversed(BOTH) for op in OPS]
    lines(ax, [f"{op} {mode}" for op, mode in both])
    for y, (op, mode) in enumerate(both):
        own = [row for row in rows if row["op"] == op and row["mode"] == mode]
        for k, name in enumerate(names):
            if found := ratios(own, name):
                color, marker = LOOKS.get(name, OTHER)
                at = y + 0.7 * ((k + 0.5) / len(names) - 0.5)
                ax.hlines(at, min(found), max(found), color=color, linewidth=1)
                ax.plot(median(found), at, marker, color=color, zorder=3)
