"""The ratios at a glance: a column for each device and mode, a line for each cell."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from benchmarks.cases import BOTH
from benchmarks.figure import LOOKS, TICKS, lines
from benchmarks.native.cases import CHUNKS, NATIVE, PARTS
from benchmarks.rows import Row, case_of

COLORS = {**LOOKS, CHUNKS: ("#E69F00", "v"), "scan": ("#56B4E9", "P")}
COLORS["linen"] = "#CC79A7", "D"
SHOWN = CHUNKS, "scan", "flax", "linen", "torch"


def draw(runs: list[list[Row]], path: Path) -> None:
    columns = [(rows, mode) for rows in runs for mode in BOTH]
    every = [row for rows in runs for row in rows]
    kinds = kinds_of(every)
    size = 2.2 + 3.2 * len(columns), 1.4 + 0.55 * len(kinds)
    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(
        1, len(columns), sharex=True, sharey=True, squeeze=False
    )
    names, found = [n for n in SHOWN if of(every, n)], [0.7, 1.5]
    for ax, (rows, mode) in zip(axes[0], columns, strict=True):
        device = rows[0]["device"]
        ax.set_title(f"{device}\n{mode}" if len(runs) > 1 else mode, fontsize=10)
        lines(ax, [label(kind) for kind in kinds])
        for y, kind in enumerate(kinds):
            own = [
                r for r in rows if (r["part"], r["op"]) == kind and r["mode"] == mode
            ]
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


def kinds_of(rows: list[Row]) -> list[tuple[str, str]]:
    """Parts and their operations, of those that have both modes."""
    found = {(row["part"], row["op"]) for row in rows}
    return [
        (p, op) for p in PARTS if p != "step" for op in PARTS[p] if (p, op) in found
    ]


def label(kind: tuple[str, str]) -> str:
    part, op = kind
    return {"resets": f"{op} with resets", "bodies": f"scan of {op}"}.get(part, op)


def of(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row["contender"] == name and row["median_ms"]]


def panel(ax: Any, y: int, rows: list[Row], names: list[str]) -> list[float]:
    """The ratios of one kind, which are drawn."""
    base = {case_of(row): row["median_ms"] for row in of(rows, NATIVE)}
    every = []
    for k, name in enumerate(names):
        pairs = [(base.get(case_of(row)), row["median_ms"]) for row in of(rows, name)]
        found = [ms / own for own, ms in pairs if own]
        if found:
            color, marker = COLORS[name]
            at = y + 0.7 * ((k + 0.5) / len(names) - 0.5)
            ax.hlines(at, min(found), max(found), color=color, linewidth=1)
            ax.plot(median(found), at, marker, color=color, markersize=5, zorder=3)
            every += found
    return every
