"""Results of runs: rows of `results.jsonl`, and runs side by side.

A run leaves `result-*.json` in its folder, what was tested and how well. With what
the run was made of it is a row, a line of `results.jsonl`. Rows that differ in their
seed alone are shown as one, by their mean.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import datasets
from experiments.frame import files
from experiments.frame.errors import InputError

Row = dict[str, Any]
KEYS = ("title", "digest", "scores", "settings", "weights", "minutes")


def checked(text: str, place: str, keys: Iterable[str]) -> Row:
    try:
        row = json.loads(text)
        if all(key in row for key in keys):
            return row
    except (ValueError, TypeError):
        pass
    raise InputError(f"{place}: not a result of a run")


def read_rows(path: Path, keys: Iterable[str] = KEYS) -> list[Row]:
    rows = enumerate(datasets.lines(path), 1)
    return [checked(row, f"{path}, line {i}", keys) for i, row in rows]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write(path, text)


def what(row: Row) -> dict[str, Any]:
    """All but the seed that a number depends on; what is off need not be there."""
    every = (row["settings"] | row.get("search", {})).items()
    return {k: v for k, v in every if k != "seed" and v not in (None, False)}


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Rows that are there twice once, the later one."""
    keys = ("title", "digest", "settings", "search")
    same = lambda row: json.dumps([row.get(key) for key in keys], sort_keys=True)
    return list({same(row): row for row in rows}.values())


def groups(
    rows: Iterable[Row], label: Callable[[dict[str, Any]], str]
) -> dict[str, list[Row]]:
    """By the label of their settings, the rows that differ in their seed alone."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(json.dumps(what(row), sort_keys=True), []).append(row)
    named: dict[str, list[Row]] = {}
    for group in found.values():
        name, own = label(group[0]["settings"]), what(group[0])
        if name in named:  # what else differs from the first of that name
            first = what(named[name][0])
            keys = [k for k in {**own, **first} if own.get(k) != first.get(k)]
            other = (f"{k} {own[k]}" if k in own else f"no {k}" for k in keys)
            name += f" ({', '.join(other)})"
        named[name] = group
    return named


def spread(values: list[float], digits: int = 1) -> str:
    """The mean, and the least and greatest of several."""
    mean, some = np.mean(values), f".{digits}f"
    if len(values) == 1:
        return f"{mean:{some}}"
    return f"{mean:{some}} ({min(values):{some}} to {max(values):{some}})"


def score_rows(
    named: dict[str, list[Row]], digits: Mapping[str, int]
) -> tuple[list[str], list[list[Any]]]:
    """The head and the lines of a table: a line for each name."""
    scores = list(named[next(iter(named))][0]["scores"])
    head = ["model", "seeds", *scores, "weights", "minutes"]
    rows = []
    for name, group in named.items():
        cells = []
        columns = [[row["scores"].get(score) for row in group] for score in scores]
        columns.append([row["minutes"] for row in group])
        for score, values in zip([*scores, "minutes"], columns, strict=True):
            there = [value for value in values if value is not None]
            some = f" ({len(there)} of {len(group)})" * (len(there) < len(group))
            cells.append(spread(there, digits.get(score, 1)) + some if there else "")
        cells.insert(-1, f"{group[0]['weights']:,}")
        rows.append([name, len(group), *cells])
    return head, rows


def markdown(head: list[str], rows: list[list[Any]]) -> str:
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])
