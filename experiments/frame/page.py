"""The page of a report: one HTML file that needs nothing else."""

import base64
import html
import io
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import matplotlib
import numpy as np
import optax
import orbax.checkpoint
from matplotlib.figure import Figure

import jaxseq
from experiments.frame import files

DPI = 160
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
img {{ max-width: 100%; }}
pre {{ background: #f5f5f2; padding: 1rem; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: .9rem; }}
pre b {{ color: #0b5394; }}
table {{ border-collapse: collapse; margin: .5rem 0; }}
td, th {{ text-align: left; padding: .2rem 1.5rem .2rem 0;
         border-bottom: 1px solid #ddd; vertical-align: top; }}
th {{ font-weight: 600; }} td.n {{ font-variant-numeric: tabular-nums; }}
.big {{ font-size: 1.25rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def table(rows: Mapping[str, Any]) -> str:
    """Names and values, one pair a row."""
    row = "<tr><th>{}</th><td class=n>{}</td></tr>"
    cells = (row.format(html.escape(k), html.escape(str(v))) for k, v in rows.items())
    return "<table>" + "\n".join(cells) + "</table>"


def grid(head: list[str], rows: list[list[Any]]) -> str:
    """A table with a head."""
    row = lambda start, end, values: "".join(
        f"{start}{html.escape(str(value))}{end}" for value in values
    )
    lines = [row("<th>", "</th>", head)]
    lines += [row("<td class=n>", "</td>", values) for values in rows]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def versions() -> dict[str, str]:
    modules = (jaxseq, jax, flax, optax, orbax.checkpoint)
    device = jax.devices()[0]
    return {
        **{module.__name__.split(".")[0]: module.__version__ for module in modules},
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
    }


def save_figure(figure: Figure, path: Path) -> str:
    """Writes the figure as PNG and returns it as an element of a page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": 11}):
        figure.savefig(buffer, format="png", dpi=DPI)
    files.write(path, buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(96 * figure.get_figwidth())  # as large as drawn, letters alike
    source = f'src="data:image/png;base64,{data}"'
    return f'<img alt="{path.stem}" width="{width}" {source}>'


def write_page(path: Path, title: str, body: str) -> Path:
    """Writes a page that ends with the versions."""
    body = f"{body}\n<h2>Versions and device</h2>\n{table(versions())}"
    page = PAGE.format(title=html.escape(title), body=body)
    files.write(path, page)
    return path


def marked(text: str) -> str:
    """A text as an element of a page, what stands between ** in bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))


def summary(facts: Mapping[str, Any], per_step: int, unit: str) -> str:
    """What a run took: a sentence."""
    seen, seconds = facts["step"] * per_step, facts["seconds"]
    return (
        f"{seen:,} {unit}s seen in {facts['step']:,} steps and {seconds / 60:.1f} "
        f"minutes ({seen / seconds:,.0f} {unit}s a second, compilation and evaluation "
        f"included); {facts['weights']:,} weights."
    )


def confusion_figure(
    counts: np.ndarray, rows: list[str], columns: list[str], **labels: str
) -> Figure:
    """How often each row was taken for each column, the darker the more of it.

    `labels` are `xlabel` and `ylabel`.
    """
    figure = Figure(figsize=(3 + 0.5 * len(columns), 2 + 0.5 * len(rows)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        if n:
            colour = "white" if shares[i, j] > 0.5 else "#222"
            axes.text(j, i, f"{n}", ha="center", va="center", color=colour, size=9)
    long = max(map(len, columns)) > 3
    how: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, **(how if long else {}))
    axes.set_yticks(range(len(rows)), rows)
    axes.set(**labels)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def loss_figure(facts: dict[str, Any], units: float, unit: str, per: str) -> Figure:
    """Training and held-out loss against the units seen, `units` a step."""
    seen = facts["train"][-1]["step"] * units
    scale, many = (1e6, "millions") if seen >= 1e6 else (1e3, "thousands")
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    series = {
        "train": ("training", "#9ab", "-"),
        "held_out": ("held out", "#0b5394", "o-"),
    }
    for name, (label, colour, style) in series.items():
        x = [row["step"] * units / scale for row in facts[name]]
        y = [row["loss"] for row in facts[name]]
        axes.plot(x, y, style, color=colour, label=label, markersize=4)
    last = facts["held_out"][-1]
    axes.annotate(
        f"{last['loss']:.3f}",
        (last["step"] * units / scale, last["loss"]),
        xytext=(0, 12),
        textcoords="offset points",
        ha="right",
        color="#0b5394",
    )
    axes.set(xlabel=f"{unit} seen, {many}", ylabel=f"nats per {per}")
    # the first steps fall from ln(vocabulary); what follows is what one looks at
    later = [row["loss"] for row in facts["train"][len(facts["train"]) // 50 :]]
    low = min([*later, *(row["loss"] for row in facts["held_out"])])
    axes.set_ylim(low - 0.05 * (max(later) - low) - 0.02, max(later) + 0.05)
    bits = axes.secondary_yaxis(
        "right", functions=(lambda n: n / np.log(2), lambda b: b * np.log(2))
    )
    bits.set_ylabel(f"bits per {per}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines["top"].set_visible(False)
    return figure
