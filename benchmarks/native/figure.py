"""The ratios at a glance: a column for each device and mode, a line for each cell."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks.cases import BOTH
from benchmarks.figure import LOOKS, TICKS, lines
from benchmarks.native.cases import CHUNKS, FLOAT32, NATIVE, PRODUCTS
from benchmarks.native.kinds import Kind, kind_of, kinds_of
from benchmarks.rows import Row, case_of

COLORS = {**LOOKS, CHUNKS: ("#E69F00", "v"), "scan": ("#56B4E9", "P")}
COLORS |= {"linen": ("#CC79A7", "D"), FLOAT32: ("#009E73", "^")}
SHOWN = CHUNKS, "scan", "flax", "linen", "torch", FLOAT32


def draw(runs: list[list[Row]], path: Path) -> None:
    columns = [(rows, mode) for rows in runs for mode in BOTH]
    every = [row for rows in runs for row in rows]
    kinds = [k for k in kinds_of(every) if k.part not in ("step", PRODUCTS)]
    size = 2.2 + 3.2 * len(columns), 1.4 + 0.42 * len(kinds)
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(
        1, len(columns), sharex=True, sharey=True, squeeze=False
    )
    names, found = [n for n in SHOWN if of(every, n)], [0.7, 1.5]
    for ax, (rows, mode) in zip(axes[0], columns, strict=True):
        device = rows[0]["device"]
        ax.set_title(f"{device}\n{mode}" if len(runs) > 1 else mode, fontsize=10)
        lines(ax, [*map(str, kinds)])
        apart(ax, kinds)
        for y, kind in enumerate(kinds):
            own = [r for r in rows if kind_of(r) == kind and r["mode"] == mode]
            found += panel(ax, y, own, names)
    ax = axes[0, 0]
    ax.set_xscale("log")
    low, high = min(found) / 1.15, max(found) * 1.15
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator([t for t in TICKS if low < t < high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    handles = []
    for name in names:
        color, marker = COLORS[name]
        handles += ax.plot([], [], marker, color=color, label=name)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    text = "time over the native engine's (log scale); median of the shapes, lowest to"
    figure.supxlabel(f"{text} highest; grey: faster than it", fontsize=9)
    figure.savefig(path, dpi=120)


def apart(ax: Any, kinds: list[Kind]) -> None:
    """A line between two parts."""
    for y in range(1, len(kinds)):
        if kinds[y].part != kinds[y - 1].part:
            ax.axhline(y - 0.5, color="0.3", linewidth=1, zorder=1)


def of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["contender"] == name and row["median_ms"]]


def panel(ax: Any, y: int, rows: list[Row], names: list[str]) -> list[float]:
    """The ratios of one kind, which are drawn."""
    base = {case_of(row): row["median_ms"] for row in of(rows, NATIVE)}
    every, names = [], [name for name in names if of(rows, name)]
    for k, name in enumerate(names):
        pairs = [(base.get(case_of(row)), row["median_ms"]) for row in of(rows, name)]
        found = [ms / own for own, ms in pairs if own]
        if found:
            color, marker = COLORS[name]
            at = y + 0.7 * ((k + 0.5) / len(names) - 0.5)
            ax.hlines(at, min(found), max(found), color=color, linewidth=1)
            ax.plot(median(found), at, marker, color=color, markersize=4.5, zorder=3)
            every += found
    return every
