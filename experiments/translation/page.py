"""The page of a run, and what several have on theirs: lengths and attention maps."""

import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import grid, loss_figure, save_figure
from experiments.frame.results import Row, groups
from experiments.translation.maps import NO_FONT, chosen, maps
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
Translated = tuple[list[dict], Translator]  # sentences, and whose they are


def label(settings: dict[str, Any]) -> str:
    score = {"additive": "concat", "multi_head": "multi-head"}
    found = NAMES[settings["model"]]
    if settings["model"] == "luong":
        found += f" ({score.get(settings.get('score') or '', 'general')})"
    return found + (", input feeding" if settings["feed"] else "")


def span(part: dict[str, Any]) -> str:
    low, high = part["low"], part["high"]
    return f"{low} to {high}" if high < 999 else f"{low} and more"


def samples(rows: list[dict], count: int = 12) -> str:
    step = max(1, len(rows) // count)
    shown = rows[::step][:count]
    columns = ("source", "hypothesis", "reference")
    cells = [[row[name] for name in columns] for row in shown]
    return grid(["source", "translation", "reference"], cells)


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


def length_figure(named: dict[str, list[Row]]) -> Figure:
    """BLEU against the words of the source, a line for each model.

    Of several seeds it is the mean, in a band from the least to the greatest.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, group in named.items():
        parts = by_length(group)
        colour, style = STYLES.get(name, (None, "o:"))
        x, y = ([part[key] for part in parts] for key in ("mean", "bleu"))
        (line,) = axes.plot(x, y, style, color=colour, label=name, markersize=4)
        if len(group) > 1:
            each = [[part["bleu"] for part in row["by_length"]] for row in group]
            ends = np.min(each, 0), np.max(each, 0)
            axes.fill_between(x, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="words of the source", ylabel="BLEU", xlim=(0, None))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside upper center", ncols=2, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shared(runs: Sequence[Translated]) -> list[dict]:
    """The sentences of the first run that all have translated."""
    sources = [{row["source"] for row in sentences} for sentences, _ in runs]
    every = set.intersection(*sources) if sources else set()
    return [row for row in runs[0][0] if row["source"] in every] if every else []


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures and tables of a run."""
    settings, found = run.settings, evaluation.results[0].more
    loss = loss_figure(run.facts, settings.tokens, "tokens and padding", "token")
    parts = [
        f"<p>sacreBLEU: {html.escape(found['signature'])}</p>",
        save_figure(loss, run.out / "loss.png"),
    ]
    translator, sentences = Translator(run), found["sentences"]
    if drawn := maps(translator, chosen(sentences), run.out, "attention-"):
        parts += ["<h2>What each token of a translation read</h2>", drawn]
    elif settings.model != "plain":
        parts.append(f"<p>{NO_FONT}</p>")
    parts.append(f"<h2>Translations</h2>\n{samples(sentences)}")
    if lengths := found["by_length"]:
        cells = [[span(part), part["n"], f"{part['bleu']:.1f}"] for part in lengths]
        parts.append("<h2>BLEU by words of the source</h2>")
        parts.append(grid(["words", "sentences", "BLEU"], cells))
    name = label(asdict(settings))
    if len(lengths) > 1:
        lines = length_figure({name: [dict(found)]})
        parts.append(save_figure(lines, run.out / "length.png"))
    title = f"{name}: {Path(settings.data).name}"
    return title[0].upper() + title[1:], "\n".join(parts)


def in_order(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By name, the rows that differ in their seed alone, in the order of NAMES."""
    order = list(NAMES)
    return groups(
        sorted(rows, key=lambda r: order.index(r["settings"]["model"])), label
    )


def figures(out: Path, rows: Sequence[Row], runs: Sequence[Translated]) -> str:
    """Of each test BLEU by length; and maps of sentences that all have translated."""
    parts = []
    tests = sorted({(row["title"], row["digest"]) for row in rows})
    for i, test in enumerate(tests, 1):
        own = [row for row in rows if (row["title"], row["digest"]) == test]
        first, named = own[0], in_order(own)
        search = first["search"]  # names say where another differs
        parts.append(
            f"<h2>{html.escape(test[0])}: {first['pairs']:,} sentences</h2>\n"
            f"<p>sacreBLEU: {html.escape(first['signature'])}; beam {search['beam']}, "
            f"length penalty {search['length_penalty']:g}.</p>"
        )
        if len(first["by_length"]) > 1:
            figure = save_figure(length_figure(named), out / f"length-{i}.png")
            parts.append(f"{figure}\n{length_table(named)}")
    for i, row in enumerate(chosen(shared(runs)), 1):
        parts.append(f"<h2>{html.escape(row['source'])}</h2>")
        parts.append(f"<p>Reference: {html.escape(row['reference'])}</p>")
        for k, (sentences, translator) in enumerate(runs, 1):
            own = next(r for r in sentences if r["source"] == row["source"])
            name = html.escape(label(asdict(translator.settings)))
            parts.append(f"<p><b>{name}</b>: {html.escape(own['hypothesis'])}</p>")
            parts.append(maps(translator, [own], out, f"attention-{k}-{i}-"))
    return "\n".join(parts)
