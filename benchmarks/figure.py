"""The ratios at a glance: a column for each device and mode, a row for each op."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks.cases import BOTH, MORE_SHAPES, OPS, SHAPES
from benchmarks.rows import Row, case_of, contenders_of, groups, ratio

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


def draw_figure(runs: list[list[Row]], path: Path) -> None:
    """Of each run, the rows of one layer over whole sequences in float32."""
    every = [row for rows in runs for row in rows]
    shapes = shapes_of(every)
    columns = [(rows, mode) for rows in runs for mode in BOTH]
    size = 1.5 + 2.7 * len(columns), 1.6 + len(OPS) * (0.6 + 0.34 * len(shapes))
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(
        len(OPS), len(columns), sharex=True, sharey=True, squeeze=False
    )
    for line, op in zip(axes, OPS, strict=True):
        for ax, (rows, mode) in zip(line, columns, strict=True):
            own = [row for row in rows if row["op"] == op and row["mode"] == mode]
            panel(ax, own, shapes)
            ax.set_title(f"{op} {mode}", fontsize=10)
    for ax, (rows, mode) in zip(axes[0], columns, strict=True):
        device = rows[0]["device"] if rows else ""
        ax.set_title(f"{device}\n{OPS[0]} {mode}", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("B,T,D,H")
    decorate(figure, every, axes)
    figure.supxlabel(
        "time over jaxseq's, float32 (log scale); grey: faster than jaxseq; "
        "bars: interquartile range",
        fontsize=9,
    )
    figure.savefig(path, dpi=100)


def shapes_of(rows: list[Row]) -> list[str]:
    """The shapes measured, first those of cases.py in their order."""
    known = [",".join(map(str, shape)) for shape in SHAPES + MORE_SHAPES]
    found = list(dict.fromkeys(case_of(row).shape for row in rows))
    return [s for s in known if s in found] + [s for s in found if s not in known]


def panel(ax: Any, rows: list[Row], shapes: list[str]) -> None:
    names = [name for name in contenders_of(rows) if name != "jaxseq"]
    lines(ax, shapes)
    for group in groups(rows):
        y = shapes.index(case_of(next(iter(group.values()))).shape)
        for k, name in enumerate(names):
            r = ratio(group, name)
            if r is None:
                continue
            color, marker = LOOKS.get(name, OTHER)
            # one above the other, so that equal ratios do not hide each other
            at = y + 0.6 * ((k + 0.5) / len(names) - 0.5)
            error = 0.5 * group[name]["iqr_ms"] / group["jaxseq"]["median_ms"]
            bar = {"xerr": min(error, 0.9 * r), "elinewidth": 1, "zorder": 3}
            ax.errorbar(r, at, fmt=marker, color=color, markersize=5, **bar)


def lines(ax: Any, names: list[str]) -> None:
    """A line for each name, and grey where others are faster than jaxseq."""
    ax.axvspan(1e-3, 1, color="0.93", zorder=0)
    ax.axvline(1, color="0.3", linewidth=1, zorder=2)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", color="0.85", zorder=0)
    for y in range(1, len(names)):
        ax.axhline(y - 0.5, color="0.85", linewidth=0.8, zorder=0)


def decorate(figure: Figure, rows: list[Row], axes: Any) -> None:
    """Axis limits and the legend."""
    by_device = [[r for r in rows if r["device"] == d] for d in {*map(device, rows)}]
    found = [
        r for own in by_device for g in groups(own) for n in g if (r := ratio(g, n))
    ]
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
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def device(row: Row) -> str:
    return row["device"]
