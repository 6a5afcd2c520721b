"""Results of runs: rows of `results.jsonl`, and runs side by side.

A run leaves `result-*.json` in its folder, what was tested and how well. With what
the run was made of it is a row, a line of `results.jsonl`. Rows that differ in their
seed alone are shown as one, by their mean.
"""

import html
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import data, files
from experiments.checkpoint import Checkpoints, make_folder, refuse_run
from experiments.errors import InputError
from experiments.page import grid, table, versions, write_page

Row = dict[str, Any]
KEYS = ("title", "digest", "scores", "settings", "weights", "minutes")


def row_of(facts: dict[str, Any], result: dict[str, Any]) -> Row:
    """The result, with the run that it is of."""
    held_out = facts["held_out"]
    return result | {
        "settings": facts["settings"],
        "weights": facts["weights"],
        "minutes": round(facts["seconds"] / 60, 1),
        **{name: facts.get(name) for name in ("cores", "device", "jax", "commit")},
        "held_out": held_out[-1]["nats"] if held_out else None,
    }


def checked(text: str, place: str, keys: Iterable[str]) -> Row:
    try:
        row = json.loads(text)
        if all(key in row for key in keys):
            return row
    except (ValueError, TypeError):
        pass
    raise InputError(f"{place}: not a result of a run")


def read_rows(path: Path, keys: Iterable[str] = KEYS) -> list[Row]:
    rows = enumerate(data.lines(path), 1)
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
    same = lambda row: json.dumps([row.get(key) for key in keys])
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
    named: dict[str, list[Row]], digits: dict[str, int]
) -> tuple[list[str], list[list[Any]]]:
    """The head and the lines of a table: a line for each name."""
    scores = list(named[next(iter(named))][0]["scores"])
    head = ["model", "seeds", *scores, "weights", "minutes"]
    rows = []
    for name, group in named.items():
        cells = []
        for score in scores:
            values = [row["scores"].get(score) for row in group]
            there = [value for value in values if value is not None]
            some = f" ({len(there)} of {len(group)})" * (len(there) < len(group))
            cells.append(spread(there, digits.get(score, 1)) + some if there else "")
        minutes = spread([row["minutes"] for row in group])
        weights = f"{group[0]['weights']:,}"
        rows.append([name, len(group), *cells, weights, minutes])
    return head, rows


def markdown(head: list[str], rows: list[list[Any]]) -> str:
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def rows_of_runs(runs: Iterable[Path]) -> list[Row]:
    """The rows of all finished runs in these folders, or somewhere below them."""
    runs = [*runs]
    below = lambda run: sorted(path.parent for path in run.glob("**/checkpoints"))
    every = dict.fromkeys(folder for run in runs for folder in below(run))
    paths = [p for folder in every for p in sorted(folder.glob("result-*.json"))]
    if runs and not paths:
        named = ", ".join(map(str, runs))
        raise InputError(f"--runs {named}: no finished run there")
    found = []
    for path in paths:
        facts = Checkpoints(path.parent, read_only=True).facts()
        result = checked(data.read(path), str(path), (*KEYS[:3], "step"))
        if result.pop("step") != facts["step"]:
            raise InputError(
                f"--runs {path.parent}: trained further since it was tested; go on "
                "with it by train --resume"
            )
        found.append(row_of(facts, result))
    return found


def by_number(title: str) -> list[Any]:
    """A key to sort titles by: 50 steps before 100."""
    parts = re.split(r"(\d+)", title)
    return [int(part) if part.isdigit() else part for part in parts]


def report(
    title: str,
    runs: list[Path],
    results: Path | None,
    out: Path,
    label: Callable[[dict[str, Any]], str],
    *,
    digits: dict[str, int] | None = None,
    figures: Callable[[Path, list[Row]], str] = lambda out, rows: "",
) -> int:
    """The command `report`: a page, tables on the screen, the rows of all.

    `figures(out, rows)` draws what stands under the tables.
    """
    if not runs and results is None:
        raise InputError("report: --runs or --results, or both, are needed")
    refuse_run(out)
    rows = [] if results is None else read_rows(results)
    rows = distinct(rows + rows_of_runs(runs))
    if not rows:
        raise InputError(f"--results {results}: no rows")
    for row in rows:
        try:
            label(row["settings"])
        except KeyError as e:
            raise InputError(f"{row['title']}: a result of another experiment") from e
    make_folder(out)
    parts = []
    titles = {(row["title"], row["digest"]) for row in rows}
    for task, digest in sorted(titles, key=lambda t: (by_number(t[0]), t[1])):
        own = [row for row in rows if (row["title"], row["digest"]) == (task, digest)]
        head, lines = score_rows(groups(own, label), digits or {})
        print(f"\n{task}\n\n{markdown(head, lines)}")
        parts.append(f"<h2>{html.escape(task)}</h2>\n{grid(head, lines)}")
    parts.append(figures(out, rows))
    parts.append(f"<h2>Versions and device</h2>{table(versions())}")
    write_rows(out / "results.jsonl", rows)
    page = write_page(out / "report.html", title, "\n".join(parts))
    print(f"\nReport: {page}")
    return 0
