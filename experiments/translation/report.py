"""Reports: of one run, and of several side by side."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from experiments.page import (
    grid,
    loss_figure,
    save_figure,
    table,
    versions,
    write_page,
)
from experiments.translation.translate import Translator

NAMES = {
    "plain": "no attention",
    "bahdanau": "Bahdanau attention",
    "luong": "Luong attention",
    "transformer": "Transformer",
}
COLOURS = {
    "plain": "#999999",
    "bahdanau": "#0b5394",
    "luong": "#38761d",
    "transformer": "#b45f06",
}
# that have Korean, Chinese and Japanese, where there is one
FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic",
         "WenQuanYi Zen Hei", "Malgun Gothic", "Apple SD Gothic Neo")  # fmt: skip


def fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]


def drawable(texts: list[str], names: list[str]) -> bool:
    """Whether the fonts have every character."""
    files = [font_manager.findfont(name) for name in names]
    known = set().union(*(FT2Font(file).get_charmap() for file in files))
    return all(ord(c) in known for text in texts for c in text if not c.isspace())


def chosen(rows: list[dict], count: int = 3) -> list[dict]:
    """The first sentences of a middling length that the fonts at hand can show."""
    lengths = [len(row["tokens"]) for row in rows]
    low, high = np.quantile(lengths, [0.4, 0.8])
    names = fonts()
    shown = lambda row: drawable([row["source"], row["hypothesis"]], names)
    fits = (row for row in rows if low <= len(row["tokens"]) <= high)
    found = []
    for row in fits:
        if len(found) < count and shown(row):
            found.append(row)
    return found


def attention_figure(translator: Translator, row: dict[str, Any]) -> Figure | None:
    """A heat map: what each token of the translation read in the source."""
    found = translator.attention(row["source"], row["tokens"])
    if found is None:
        return None
    weights, sources, targets = found
    size = (1.5 + 0.27 * len(sources), 1.2 + 0.27 * len(targets))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    family = {"fontfamily": fonts(), "fontsize": 9}
    label = lambda piece: piece if piece.strip() else "␣"
    axes.set_xticks(range(len(sources)), [*map(label, sources)], **family)
    # characters stand upright, pieces of words do not fit so
    turned = max(len(piece.strip()) for piece in sources[:-1]) > 1
    axes.tick_params(axis="x", rotation=90 if turned else 0)
    axes.set_yticks(range(len(targets)), [*map(label, targets)], **family)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("#ccc")
    return figure


def maps(translator: Translator, rows: list[dict], out: Path, prefix: str) -> str:
    """Attention maps as PNG beside the page, and as part of it."""
    found = []
    for i, row in enumerate(rows, 1):
        figure = attention_figure(translator, row)
        if figure is not None:
            found.append(save_figure(figure, out / f"{prefix}{i}.png"))
    return "\n".join(f"<p>{element}</p>" for element in found)


def length_figure(results: dict[str, dict[str, Any]], names: dict[str, str]) -> Figure:
    """BLEU against the words of the source, one line for each run."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for run, result in results.items():
        x = [part["mean"] for part in result["by_length"]]
        y = [part["bleu"] for part in result["by_length"]]
        colour = COLOURS.get(result["model"])
        axes.plot(x, y, "o-", color=colour, label=names[run], markersize=4)
    axes.set(xlabel="words of the source", ylabel="BLEU")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def length_table(results: dict[str, dict[str, Any]], names: dict[str, str]) -> str:
    parts = [
        (part["low"], part["high"], part["n"])
        for part in next(iter(results.values()))["by_length"]
    ]
    span = lambda low, high: f"{low}-{high}" if high < 999 else f"{low} and more"
    head = ["words", "sentences", *(names[run] for run in results)]
    rows = []
    for low, high, n in parts:
        scores = [
            next((p["bleu"] for p in r["by_length"] if p["low"] == low), np.nan)
            for r in results.values()
        ]
        rows.append([span(low, high), n, *(f"{score:.1f}" for score in scores)])
    return grid(head, rows)


def samples(rows: list[dict], count: int = 12) -> str:
    step = max(1, len(rows) // count)
    shown = rows[::step][:count]
    columns = ("source", "hypothesis", "reference")
    cells = [[row[name] for name in columns] for row in shown]
    return grid(["source", "translation", "reference"], cells)


def write_report(
    out: Path, facts: dict[str, Any], result: dict[str, Any], translator: Translator
) -> Path:
    """The page of one run, with its figures, in the folder of the run."""
    settings = facts["settings"]
    figure = loss_figure(facts, settings["tokens"], "tokens", "token")
    drawn = maps(translator, chosen(result["rows"]), out, "attention-")
    heading = "<h2>What each token of a translation read</h2>" if drawn else ""
    body = f"""<p class="big">{html.escape(result["title"])}: BLEU
<b>{result["bleu"]:.2f}</b>, perplexity of a token <b>{result["perplexity"]:.2f}</b>,
exact match <b>{100 * result["exact"]:.1f}%</b> of {result["pairs"]:,} sentences.</p>
<p>{html.escape(result["signature"])}</p>
<p>{facts["step"]:,} steps in {facts["seconds"] / 60:.1f} minutes, compilation and
evaluation included; {facts["weights"]:,} weights.</p>
{save_figure(figure, out / "loss.png")}
{heading}
{drawn}
<h2>Translations</h2>
{samples(result["rows"])}
<h2>BLEU by length of the source</h2>
{length_table({"": result}, {"": "BLEU"})}
<h2>Settings</h2>
{table({**settings, **result["search"]})}
<h2>Versions and device</h2>
{table(versions())}"""
    title = f"{NAMES[settings['model']]}: {settings['data']}"
    return write_page(out / "report.html", title[0].upper() + title[1:], body)


def compare(
    out: Path,
    runs: list[tuple[Path, dict[str, Any], dict[str, dict[str, Any]], Translator]],
) -> Path:
    """The page of several runs: (folder, facts, results by name, translator)."""
    models = [facts["settings"]["model"] for _, facts, _, _ in runs]
    single = len(set(models)) == len(models)
    names = {
        str(run): NAMES[model] if single else f"{NAMES[model]}, {run.name}"
        for (run, *_), model in zip(runs, models, strict=True)
    }
    parts = []
    for test in sorted({test for *_, results, _ in runs for test in results}):
        results = {str(run): r[test] for run, _, r, _ in runs if test in r}
        head = ["model", "BLEU", "perplexity", "weights", "steps", "minutes"]
        rows = []
        for run, facts, _, _ in runs:
            if str(run) not in results:
                continue
            result = results[str(run)]
            rows.append([
                names[str(run)], f"{result['bleu']:.2f}",
                f"{result['perplexity']:.2f}", f"{facts['weights']:,}",
                f"{facts['step']:,}", f"{facts['seconds'] / 60:.1f}",
            ])  # fmt: skip
        first = next(iter(results.values()))
        figure = length_figure(results, names)
        parts.append(
            f"<h2>{html.escape(first['title'])}</h2>\n{grid(head, rows)}\n"
            f"<p>{html.escape(first['signature'])}; beam {first['search']['beam']}, "
            f"length penalty {first['search']['length_penalty']:g}.</p>\n"
            f"{save_figure(figure, out / f'length-{test}.png')}\n"
            f"{length_table(results, names)}"
        )
    rows = chosen(next(iter(runs[0][2].values()))["rows"])
    for i, row in enumerate(rows):
        parts.append(f"<h2>{html.escape(row['source'])}</h2>")
        parts.append(f"<p>Reference: {html.escape(row['reference'])}</p>")
        for (run, _, results, translator), model in zip(runs, models, strict=True):
            found = next(iter(results.values()))["rows"]
            own = next((r for r in found if r["source"] == row["source"]), None)
            if own is None:
                continue
            text = html.escape(own["hypothesis"])
            parts.append(f"<p><b>{names[str(run)]}</b>: {text}</p>")
            parts.append(maps(translator, [own], out, f"attention-{model}-{i + 1}-"))
    parts.append(f"<h2>Versions and device</h2>{table(versions())}")
    return write_page(out / "report.html", "Translation", "\n".join(parts))
