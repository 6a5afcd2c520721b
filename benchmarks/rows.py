"""Reads rows back and puts each contender beside jaxseq."""

import json
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.errors import UsageError
from benchmarks.shapes import MODES, OPS, SHAPES, Shape

Row = dict[str, Any]
Group = dict[str, Row]  # the rows of one op, mode and shape, by contender


def newest_run(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if not rows:
        raise UsageError(f"{path} has no rows")
    newest = max(row["run"] for row in rows)
    return [row for row in rows if row["run"] == newest]


def shape_of(row: Row) -> Shape:
    return Shape(row["B"], row["T"], row["D"], row["H"])


def shapes_of(rows: list[Row]) -> list[Shape]:
    """The shapes measured, first those of shapes.py in their order."""
    found = {shape_of(row) for row in rows}
    return [s for s in SHAPES if s in found] + sorted(found - set(SHAPES))


def contenders_of(rows: list[Row]) -> list[str]:
    return [n for n in CONTENDERS if any(row["contender"] == n for row in rows)]


def groups(rows: list[Row]) -> list[Group]:
    found: dict[Any, Group] = {}
    for row in rows:
        group = found.setdefault((row["op"], row["mode"], shape_of(row)), {})
        group[row["contender"]] = row
    keys = [(o, m, s) for o in OPS for m in MODES for s in shapes_of(rows)]
    return [found[key] for key in keys if key in found]


def select(rows: list[Row], op: str, mode: str) -> list[Row]:
    return [row for row in rows if row["op"] == op and row["mode"] == mode]


def ratio(group: Group, name: str, key: str = "median_ms") -> float | None:
    """A contender's value over jaxseq's in the same rounds, if both were timed."""
    rows = group.get(name), group.get("jaxseq")
    if any(row is None or row["median_ms"] is None for row in rows):
        return None
    value, base = (row[key] for row in rows if row is not None)
    return value / base if base and value is not None else None


def ratios(rows: list[Row], name: str, key: str = "median_ms") -> list[float]:
    found = (ratio(group, name, key) for group in groups(rows))
    return [r for r in found if r is not None]


def title(rows: list[Row]) -> str:
    """The device and the versions of what was timed."""
    versions = {n: v for row in rows for n, v in row["versions"].items()}
    return f"{rows[0]['device']}: " + ", ".join(f"{n} {v}" for n, v in versions.items())


def not_timed(rows: list[Row]) -> list[str]:
    """One line for each contender and op that was not timed, with its reason."""
    reasons: dict[str, str] = {}
    for row in rows:
        if row["median_ms"] is None:
            reasons.setdefault(f"{row['contender']} {row['op']}", row["reason"])
    return [f"{name}: {reason}" for name, reason in reasons.items()]
