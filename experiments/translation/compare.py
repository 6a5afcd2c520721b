"""Several runs side by side: tables, BLEU against length, attention maps.

A row is what there is to know of one evaluation of one run, as JSON: the lines of
`results.jsonl`. Rows that differ in their seed alone are shown as one, by their mean.
"""

import html
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import data
from experiments.errors import InputError
from experiments.page import grid, save_figure, table, versions, write_page
from experiments.translation.maps import chosen, maps
from experiments.translation.translate import Translator

NAMES = {
    "plain": "no attention",
    "luong": "Luong attention",
    "bahdanau": "Bahdanau attention",
    "transformer": "Transformer",
}
STYLES = {
    "no attention": ("#888888", "o-"),
    "Luong attention": ("#38761d", "s--"),
    "Luong attention, input feeding": ("#38761d", "s-"),
    "Bahdanau attention": ("#0b5394", "o-"),
    "Transformer": ("#b45f06", "o-"),
}
Row = dict[str, Any]


def label(settings: dict[str, Any]) -> str:
    score = {"additive": " (concat)", "multi_head": " (multi-head)"}
    found = NAMES[settings["model"]]
    if settings["model"] == "luong":
        found += score.get(settings.get("score"), "")
    return found + (", input feeding" if settings["feed"] else "")


def span(part: dict[str, Any]) -> str:
    low, high = part["low"], part["high"]
    return f"{low} to {high}" if high < 999 else f"{low} and more"


def row_of(facts: dict[str, Any], result: dict[str, Any]) -> Row:
    """A row of `results.jsonl`: the result without its sentences, and the run."""
    kept = {k: v for k, v in result.items() if k not in ("rows", "seconds")}
    return kept | {
        "settings": facts["settings"],
        "weights": facts["weights"],
        "minutes": round(facts["seconds"] / 60, 1),
        "held_out": facts["held_out"][-1]["nats"],
    }


def read_rows(path: Path) -> list[Row]:
    rows = []
    for i, line in enumerate(data.lines(path), 1):
        try:
            row = json.loads(line)
            label(row["settings"])
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"{path}, line {i}: not a result of a run") from e
        rows.append(row)
    return rows


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """By name, the rows that differ in their seed alone, in the order of NAMES."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        rest = {k: v for k, v in row["settings"].items() if k != "seed"}
        found.setdefault(json.dumps([rest, row["search"]]), []).append(row)
    order = list(NAMES)
    ordered = sorted(found.values(), key=lambda g: order.index(g[0]["model"]))
    named: dict[str, list[Row]] = {}
    for group in ordered:
        name, settings = label(group[0]["settings"]), group[0]["settings"]
        if name in named:  # what else differs from the first of that name
            first = named[name][0]["settings"]
            other = [f"{k} {v}" for k, v in settings.items() if first.get(k) != v]
            name += f" ({', '.join(o for o in other if not o.startswith('seed '))})"
        named[name] = group
    return named


def spread(values: list[float], digits: int = 1) -> str:
    """The mean, and the least and greatest of several."""
    mean, some = np.mean(values), f".{digits}f"
    if len(values) == 1:
        return f"{mean:{some}}"
    return f"{mean:{some}} ({min(values):{some}} to {max(values):{some}})"


def score_table(named: dict[str, list[Row]]) -> str:
    head = ["model", "seeds", "BLEU", "perplexity", "weights", "minutes"]
    of = lambda group, key: [row[key] for row in group]
    return grid(
        head,
        [
            [
                name,
                len(group),
                spread(of(group, "bleu")),
                spread(of(group, "perplexity"), 2),
                f"{group[0]['weights']:,}",
                spread(of(group, "minutes")),
            ]
            for name, group in named.items()
        ],
    )


def by_length(group: list[Row]) -> list[dict[str, Any]]:
    """Means over seeds, whose test sentences are the same."""
    parts = zip(*(row["by_length"] for row in group), strict=True)
    mean = lambda part: float(np.mean([p["bleu"] for p in part]))
    return [{**part[0], "bleu": mean(part)} for part in parts]


def length_table(named: dict[str, list[Row]]) -> str:
    columns = [by_length(group) for group in named.values()]
    cells = [
        [span(parts[0]), parts[0]["n"], *(f"{part['bleu']:.1f}" for part in parts)]
        for parts in zip(*columns, strict=True)
    ]
    return grid(["words", "sentences", *named], cells)


def length_figure(named: dict[str, list[Row]]) -> Figure:
    """BLEU against the words of the source, a line for each model."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, group in named.items():
        parts = by_length(group)
        colour, style = STYLES.get(name, (None, "o:"))
        x, y = ([part[key] for part in parts] for key in ("mean", "bleu"))
        axes.plot(x, y, style, color=colour, label=name, markersize=4)
    axes.set(xlabel="words of the source", ylabel="BLEU", xlim=(0, None))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_comparison(
    out: Path,
    rows: list[Row],
    runs: list[tuple[Path, list[dict], Translator]],
) -> Path:
    """The page of all rows; and maps of runs (folder, sentences, translator)."""
    parts = []
    tests = sorted({row["title"] for row in rows})
    for i, title in enumerate(tests, 1):
        group = [row for row in rows if row["title"] == title]
        named, first = groups(group), group[0]
        heading = f"<h2>{html.escape(title)}: {first['pairs']:,} sentences</h2>"
        search = first["search"]
        parts.append(
            f"{heading}\n{score_table(named)}\n"
            f"<p>{html.escape(first['signature'])}; beam {search['beam']}, "
            f"length penalty {search['length_penalty']:g}.</p>"
        )
        if len(first["by_length"]) > 1:
            figure = save_figure(length_figure(named), out / f"length-{i}.png")
            parts.append(f"{figure}\n{length_table(named)}")
    for i, row in enumerate(chosen(runs[0][1]) if runs else [], 1):
        parts.append(f"<h2>{html.escape(row['source'])}</h2>")
        parts.append(f"<p>Reference: {html.escape(row['reference'])}</p>")
        for run, sentences, translator in runs:
            own = next((r for r in sentences if r["source"] == row["source"]), None)
            if own is None:
                continue
            name = html.escape(label(asdict(translator.settings)))
            parts.append(f"<p><b>{name}</b>: {html.escape(own['hypothesis'])}</p>")
            parts.append(maps(translator, [own], out, f"attention-{run.name}-{i}-"))
    parts.append(f"<h2>Versions and device</h2>{table(versions())}")
    return write_page(out / "report.html", "Translation", "\n".join(parts))
