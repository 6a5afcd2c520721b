"""The ratios of a run at a glance: a panel for each op and mode, a line a shape."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks.rows import (
    Row,
    contenders_of,
    groups,
    not_timed,
    ratio,
    select,
    shape_of,
    shapes_of,
    title,
)
from benchmarks.shapes import MODES, OPS

# Okabe and Ito's colours, which the colour-blind can tell apart, and a shape each
LOOKS = {
    "flax": ("#0072B2", "o"),
    "equinox": ("#009E73", "^"),
    "haiku": ("#CC79A7", "D"),
    "keras": ("#D55E00", "s"),
    "torch": ("#000000", "X"),
}
OTHER = ("0.5", "o")
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw_figure(rows: list[Row], path: Path) -> None:
    ops = [op for op in OPS if any(row["op"] == op for row in rows)]
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    shapes = list(map(str, shapes_of(rows)))
    height = 2.2 + len(ops) * (0.9 + 0.36 * len(shapes))
    figure = Figure(figsize=(3 + 4.5 * len(modes), height), layout="constrained")
    axes: Any = figure.subplots(
        len(ops), len(modes), sharex=True, sharey=True, squeeze=False
    )
    for line, op in zip(axes, ops, strict=True):
        for ax, mode in zip(line, modes, strict=True):
            ax.set_title(f"{op} {mode}", fontweight="bold")
            panel(ax, select(rows, op, mode), shapes)
    for ax in axes[-1]:
        ax.set_xlabel("time over jaxseq's (log scale)")
    for ax in axes[:, 0]:
        ax.set_ylabel("B,T,D,H")
    decorate(figure, rows, axes)
    figure.savefig(path, dpi=130)


def panel(ax: Any, rows: list[Row], shapes: list[str]) -> None:
    names = [name for name in contenders_of(rows) if name != "jaxseq"]
    ax.axvspan(1e-3, 1, color="0.93", zorder=0)
    ax.axvline(1, color="0.3", linewidth=1, zorder=1)
    for group in groups(rows):
        row = next(iter(group.values()))
        y = shapes.index(str(shape_of(row)))
        for k, name in enumerate(names):
            r = ratio(group, name)
            if r is None:
                continue
            color, marker = LOOKS.get(name, OTHER)
            # one above the other, so that equal ratios do not hide each other
            at = y + 0.6 * ((k + 0.5) / len(names) - 0.5)
            error = 0.5 * group[name]["iqr_ms"] / group["jaxseq"]["median_ms"]
            bar = {"xerr": min(error, 0.9 * r), "elinewidth": 1, "zorder": 3}
            ax.errorbar(r, at, fmt=marker, color=color, markersize=6, **bar)
    ax.set_yticks(range(len(shapes)), shapes)
    ax.set_ylim(len(shapes) - 0.5, -0.5)
    ax.grid(axis="x", color="0.85", zorder=0)
    for y in range(1, len(shapes)):
        ax.axhline(y - 0.5, color="0.85", linewidth=0.8, zorder=0)


def decorate(figure: Figure, rows: list[Row], axes: Any) -> None:
    """Axis limits, the legend, the title and what was not timed."""
    found = [r for g in groups(rows) for n in g if (r := ratio(g, n)) is not None]
    low, high = min([0.7, *found]) / 1.2, max([1.5, *found]) * 1.2
    x = axes[0, 0]
    x.set_xscale("log")
    x.set_xlim(low, high)
    x.xaxis.set_major_locator(FixedLocator([t for t in TICKS if low < t < high]))
    x.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    x.xaxis.set_minor_locator(NullLocator())
    x.xaxis.set_minor_formatter(NullFormatter())
    handles = [x.axvline(1, color="0.3", linewidth=1, label="jaxseq")]
    for name in contenders_of(rows):
        if name != "jaxseq":
            color, marker = LOOKS.get(name, OTHER)
            handles += x.plot([], [], marker, color=color, label=name)
    figure.legend(handles=handles, loc="outside right center")
    device, versions = title(rows).split(": ", 1)
    figure.suptitle(f"Time over jaxseq's on {device}, float32\n{versions}", fontsize=11)
    notes = ["grey: faster than jaxseq; bars: interquartile range"]
    notes += (f"not timed, {line}" for line in not_timed(rows))
    figure.supxlabel("\n".join(notes), fontsize=9, color="0.3")
