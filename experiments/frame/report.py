"""The command `report`: runs side by side."""

import html
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments import datasets
from experiments.frame.checkpoint import Checkpoints, refuse_run
from experiments.frame.errors import InputError
from experiments.frame.experiment import Experiment
from experiments.frame.files import make_folder
from experiments.frame.page import grid, write_page
from experiments.frame.results import (
    KEYS,
    Row,
    checked,
    distinct,
    groups,
    markdown,
    read_rows,
    score_rows,
    write_rows,
)

# what a result has in the folder of its run alone
OF_THE_RUN = ("step", "sentences")


def row_of(facts: dict[str, Any], result: dict[str, Any]) -> Row:
    """The result, with the run that it is of."""
    held_out = facts["held_out"]
    result = {k: v for k, v in result.items() if k not in OF_THE_RUN}
    return result | {
        "settings": facts["settings"],
        "weights": facts["weights"],
        "minutes": round(facts["seconds"] / 60, 1),
        **{name: facts.get(name) for name in ("cores", "device", "jax", "commit")},
        "held_out": held_out[-1].get("loss") if held_out else None,
    }


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
        result = checked(datasets.read(path), str(path), (*KEYS[:3], "step"))
        if result["step"] != facts["step"]:
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
    experiment: Experiment, runs: list[Path], results: Path | None, out: Path
) -> int:
    """A page, tables on the screen, and the rows of all."""
    if not runs and results is None:
        raise InputError("report: --runs or --results, or both, are needed")
    refuse_run(out)
    rows = [] if results is None else read_rows(results)
    rows = distinct(rows + rows_of_runs(runs))
    if not rows:
        raise InputError(f"--results {results}: no rows")
    label = experiment.page.label
    known = {field.name for field in fields(experiment.preset({}))}
    for row in rows:
        try:
            if not row["settings"].keys() <= known:
                raise KeyError
            label(row["settings"])
        except KeyError as e:
            raise InputError(f"{row['title']}: a result of another experiment") from e
    make_folder(out)
    parts = []
    titles = {(row["title"], row["digest"]) for row in rows}
    for task, digest in sorted(titles, key=lambda t: (by_number(t[0]), t[1])):
        own = [row for row in rows if (row["title"], row["digest"]) == (task, digest)]
        head, lines = score_rows(groups(own, label), experiment.digits)
        print(f"\n{task}\n\n{markdown(head, lines)}")
        parts.append(f"<h2>{html.escape(task)}</h2>\n{grid(head, lines)}")
    parts.append(experiment.figures(out, rows, runs))
    write_rows(out / "results.jsonl", rows)
    page = write_page(out / "report.html", experiment.title, "\n".join(parts))
    print(f"\nReport: {page}")
    return 0
