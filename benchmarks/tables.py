"""Rows as Markdown tables."""

import statistics
from collections.abc import Sequence

from benchmarks.rows import (
    Row,
    contenders_of,
    groups,
    ratio,
    ratios,
    select,
    shape_of,
)
from benchmarks.shapes import MODES, OPS


def markdown(left: Sequence[str], right: Sequence[str], rows: list[list[str]]) -> str:
    """A table whose columns `left` are aligned left and `right` right."""
    lines = [[*left, *right], ["---"] * len(left) + ["---:"] * len(right), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if value > 100 else f"{value:.3g}"


def summary(rows: list[Row]) -> str:
    """Each contender against jaxseq, over the shapes."""
    lines = []
    for name in contenders_of(rows):
        for mode in MODES:
            of_mode = [row for row in rows if row["mode"] == mode]
            if name == "jaxseq" or not of_mode:
                continue
            cells = [name, mode]
            cells += [spread(ratios(select(rows, op, mode), name)) for op in OPS]
            for key in ("compile_ms", "temp_mb"):
                found = ratios(of_mode, name, key)
                cells.append(f"{statistics.median(found):.2f}" if found else "–")
            lines.append(cells)
    return markdown(["contender", "mode"], [*OPS, "compile", "memory"], lines)


def spread(found: list[float]) -> str:
    if not found:
        return "–"
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def details(rows: list[Row]) -> str:
    """Every measurement: jaxseq in milliseconds, the others as ratios to it."""
    peers = [name for name in contenders_of(rows) if name != "jaxseq"]
    lines = []
    for group in groups(rows):
        row, ours = next(iter(group.values())), group.get("jaxseq", {})
        cells = [row["op"], row["mode"], str(shape_of(row)), number(row["floor_ms"])]
        cells += [number(ours.get(key)) for key in ("median_ms", "iqr_ms")]
        found = [ratio(group, name) for name in peers]
        lines.append(cells + ["–" if r is None else f"{r:.2f}" for r in found])
    return markdown(
        ["op", "mode", "B,T,D,H"], ["floor ms", "jaxseq ms", "± iqr", *peers], lines
    )
