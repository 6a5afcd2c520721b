"""The page of the gates: a text coloured by single units."""

import html
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.memory.gates import Found
from experiments.memory.report import BLUE, tidy
from experiments.page import save_figure, table, versions, write_page


def coloured(text: str, values: np.ndarray) -> str:
    """A text on blue where the value of its character is near 1, red near -1."""
    levels = np.round(8 * np.clip(values, -1, 1)).astype(int).tolist()
    parts = []
    for level, group in groupby(zip(levels, text, strict=True), key=lambda p: p[0]):
        piece = html.escape("".join(char for _, char in group))
        colour = "11,83,148" if level > 0 else "178,34,34"
        back = f"rgba({colour},{0.85 * abs(level) / 8:.2f})"
        front = "#fff" if abs(level) > 5 else "#222"
        parts.append(f'<span style="background:{back};color:{front}">{piece}</span>')
    return f'<pre style="font-size:.72rem;line-height:1.35">{"".join(parts)}</pre>'


def spans_figure(forget: np.ndarray) -> Figure:
    """How long units keep what they have, by the mean of their forget gates."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    spans = 1 / np.maximum(1 - forget.mean(0), 1e-4)
    bins = np.geomspace(1, max(2.0, spans.max() * 1.01), 30)
    axes.hist(spans, bins.tolist(), color=BLUE)
    axes.set_xscale("log")
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n <= bins[-1]]
    axes.set_xticks(ticks, [*map(str, ticks)])
    axes.minorticks_off()
    tidy(axes, xlabel="characters, 1 / (1 - mean forget gate)", ylabel="units")
    return figure


def write_gates(
    out: Path, text: str, c: np.ndarray, forget: np.ndarray, units: list[Found],
    facts: dict[str, Any], shown: int,
) -> Path:  # fmt: skip
    figure = save_figure(spans_figure(forget), out / "spans.png")
    parts = []
    for what, unit, r in units:
        why = f": {html.escape(what)}, correlation {r:.2f}" if what else ""
        cell, gate = np.tanh(c[:shown, unit]), forget[:shown, unit]
        parts.append(f"<h2>Unit {unit}{why}</h2>")
        parts.append(f"<p>Its cell, tanh c:</p>{coloured(text[:shown], cell)}")
        mean = forget[:, unit].mean()
        parts.append(f"<p>Its forget gate, {mean:.2f} on the average:</p>")
        parts.append(coloured(text[:shown], gate))
    chosen = (
        f"Units were chosen by how well their cells go with what a reader sees, over "
        f"{len(text):,} characters."
        if any(unit.what for unit in units)
        else ""
    )
    body = f"""<p>Blue is near 1, red near -1. A forget gate of 1 keeps the cell, one of
0 empties it. The colour of a character is what the unit has after reading it.
{chosen}</p>
{figure}
{"".join(parts)}
<h2>Model</h2>
{table({"text": facts["text"], **facts["settings"]})}
<h2>Versions and device</h2>
{table(versions())}"""
    return write_page(out / "report.html", "What units of an LSTM keep", body)
