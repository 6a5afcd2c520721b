"""Several runs side by side: tables, BLEU against length, attention maps.

A row is what there is to know of one evaluation of one run, as JSON: the lines of
`results.jsonl`. Rows that differ in their seed alone are shown as one, by their mean.
"""

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import data, results
from experiments.page import grid, save_figure, table, versions, write_page
from experiments.results import Row, spread
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
    "Luong attention (general)": ("#93c47d", "s--"),
    "Luong attention (general), input feeding": ("#93c47d", "s:"),
    "Luong attention (concat), input feeding": ("#38761d", "s-"),
    "Bahdanau attention": ("#0b5394", "o-"),
    "Transformer": ("#b45f06", "o-"),
}
# of each row; the last is of the pairs tested, older rows are without it
KEYS = ("title", "model", "pairs", "bleu", "signature", "perplexity", "search",
        "by_length", "settings", "weights", "minutes")  # fmt: skip


def label(settings: dict[str, Any]) -> str:
    score = {"additive": "concat", "multi_head": "multi-head"}
    found = NAMES[settings["model"]]
    if settings["model"] == "luong":
        found += f" ({score.get(settings.get('score') or '', 'general')})"
    return found + (", input feeding" if settings["feed"] else "")


def span(part: dict[str, Any]) -> str:
    low, high = part["low"], part["high"]
    return f"{low} to {high}" if high < 999 else f"{low} and more"


def row_of(facts: dict[str, Any], result: dict[str, Any]) -> Row:
    """A row of `results.jsonl`: the result without its sentences, and the run."""
    kept = {k: v for k, v in result.items() if k not in ("rows", "seconds")}
    return results.row_of(facts, kept)


def read_rows(path: Path) -> list[Row]:
    return results.read_rows(path, KEYS)


def read_result(path: Path) -> Row:
    return results.checked(data.read(path), str(path), (*KEYS[:8], "rows", "step"))


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    """By name, the rows that differ in their seed alone, in the order of NAMES."""
    order = list(NAMES)
    return results.groups(sorted(rows, key=lambda r: order.index(r["model"])), label)


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
    parts = {name: by_length(group) for name, group in named.items()}
    first = next(iter(parts.values()))
    head = ["words", *(span(part).replace(" ", "\u00a0") for part in first)]
    cells = [["sentences", *(part["n"] for part in first)]]
    for name, own in parts.items():
        cells.append([name, *(f"{part['bleu']:.1f}" for part in own)])
    few = "<p>Ranges of fewer than 20 sentences are left out.</p>"
    return grid(head, cells) + few


def test_of(row: Row) -> tuple[str, ...]:
    """What rows must share to stand in one table: the sentences, and how scored."""
    ranges = [(part["low"], part["n"]) for part in row["by_length"]]
    same = row["pairs"], row.get("pairs_digest"), ranges
    return row["title"], row["signature"], json.dumps(same)


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
    figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shared(runs: list[tuple[Path, list[dict], Translator]]) -> list[dict]:
    """The sentences of the first run that all have translated."""
    sources = [{row["source"] for row in sentences} for _, sentences, _ in runs]
    every = set.intersection(*sources) if sources else set()
    return [row for row in runs[0][1] if row["source"] in every] if every else []


def write_comparison(
    out: Path,
    rows: list[Row],
    runs: list[tuple[Path, list[dict], Translator]],
) -> Path:
    """The page of all rows; and maps of runs (folder, sentences, translator)."""
    parts = []
    for i, test in enumerate(sorted({*map(test_of, rows)}), 1):
        group = [row for row in rows if test_of(row) == test]
        named, first = groups(group), group[0]
        heading = html.escape(f"{test[0]}: {first['pairs']:,} sentences")
        search = first["search"]  # names say where another differs
        parts.append(
            f"<h2>{heading}</h2>\n{score_table(named)}\n"
            f"<p>{html.escape(first['signature'])}; beam {search['beam']}, "
            f"length penalty {search['length_penalty']:g}.</p>"
        )
        if len(first["by_length"]) > 1:
            figure = save_figure(length_figure(named), out / f"length-{i}.png")
            parts.append(f"{figure}\n{length_table(named)}")
    for i, row in enumerate(chosen(shared(runs)), 1):
        parts.append(f"<h2>{html.escape(row['source'])}</h2>")
        parts.append(f"<p>Reference: {html.escape(row['reference'])}</p>")
        for k, (_, sentences, translator) in enumerate(runs, 1):
            own = next(r for r in sentences if r["source"] == row["source"])
            name = html.escape(label(asdict(translator.settings)))
            parts.append(f"<p><b>{name}</b>: {html.escape(own['hypothesis'])}</p>")
            parts.append(maps(translator, [own], out, f"attention-{k}-{i}-"))
    parts.append(f"<h2>Versions and device</h2>{table(versions())}")
    return write_page(out / "report.html", "Translation", "\n".join(parts))
