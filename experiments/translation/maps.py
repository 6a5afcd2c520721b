"""Attention maps: what each token of a translation read in the source."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.frame.fonts import drawable, fonts
from experiments.frame.page import save_figure
from experiments.translation.translate import Translator

MOST = 40  # tokens of a translation drawn
NO_FONT = (
    "No attention map: the fonts of this machine lack characters of the sentences. "
    "Noto Sans CJK has those of Korean, Chinese and Japanese."
)


def chosen(rows: list[dict], count: int = 3) -> list[dict]:
    """The first sentences of a middling length that the fonts at hand can show."""
    if not rows:
        return []
    rows = [row for row in rows if row["hypothesis"]] or rows
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
    weights, targets = weights[:MOST], targets[:MOST]
    size = (2.6 + 0.27 * len(sources), 1.4 + 0.27 * len(targets))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="Blues", vmin=0)
    bar = figure.colorbar(image, shrink=min(1, 6 / len(targets)), aspect=12, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore
    bar.ax.tick_params(labelsize=8, length=0)
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
