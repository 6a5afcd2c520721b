"""The page of one run."""

import html
from pathlib import Path
from typing import Any

from experiments.page import (
    grid,
    loss_figure,
    save_figure,
    table,
    versions,
    write_page,
)
from experiments.translation.compare import label, length_figure, span
from experiments.translation.maps import NO_FONT, chosen, maps
from experiments.translation.translate import Translator


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
    figure = loss_figure(facts, settings["tokens"], "tokens and padding", "token")
    drawn = maps(translator, chosen(result["rows"]), out, "attention-")
    heading = "<h2>What each token of a translation read</h2>" if drawn else ""
    if settings["model"] != "plain" and not drawn:
        drawn = f"<p>{NO_FONT}</p>"
    parts = [
        [span(part), part["n"], f"{part['bleu']:.1f}"] for part in result["by_length"]
    ]
    lengths = ""
    if parts:
        heading_of_lengths = "<h2>BLEU by words of the source</h2>"
        lengths = heading_of_lengths + grid(["words", "sentences", "BLEU"], parts)
    if len(parts) > 1:
        lines = length_figure({label(settings): [result]})
        lengths += save_figure(lines, out / "length.png")
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
{lengths}
<h2>Settings</h2>
{table({**settings, **result["search"]})}
<h2>Versions and device</h2>
{table(versions())}"""
    title = f"{label(settings)}: {Path(settings['data']).name}"
    return write_page(out / "report.html", title[0].upper() + title[1:], body)
