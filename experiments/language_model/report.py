"""The report of a run: one HTML page that needs nothing else, and its figure."""

import base64
import html
import io
import platform
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
from experiments.language_model.sample import Sampling

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
img {{ width: 100%; }}
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
<p class="big">Held-out text: <b>{nats:.4f}</b> nats,
<b>{bits:.4f}</b> bits per character, perplexity <b>{perplexity:.3f}</b>.</p>
<p>{summary}</p>
<img alt="Loss against characters seen" src="data:image/png;base64,{figure}">
<h2>Sample</h2>
<p>{sampling}</p>
<pre>{sample}</pre>
<h2>Settings</h2>
{settings}
<h2>Versions and device</h2>
{versions}
</body>
</html>
"""


def table(rows: dict[str, Any]) -> str:
    row = "<tr><th>{}</th><td class=n>{}</td></tr>"
    cells = (row.format(html.escape(k), html.escape(str(v))) for k, v in rows.items())
    return "<table>" + "\n".join(cells) + "</table>"


def versions() -> dict[str, str]:
    modules = (jaxseq, jax, flax, optax, orbax.checkpoint)
    device = jax.devices()[0]
    return {
        **{module.__name__.split(".")[0]: module.__version__ for module in modules},
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
    }


def loss_figure(facts: dict[str, Any]) -> Figure:
    settings = facts["settings"]
    chars = settings["batch"] * settings["window"] / 1e6
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    series = {
        "train": ("training", "#9ab", "-"),
        "held_out": ("held out", "#0b5394", "o-"),
    }
    for name, (label, colour, style) in series.items():
        x = [row["step"] * chars for row in facts[name]]
        y = [row["nats"] for row in facts[name]]
        axes.plot(x, y, style, color=colour, label=label, markersize=4)
    last = facts["held_out"][-1]
    axes.annotate(
        f"{last['nats']:.3f}",
        (last["step"] * chars, last["nats"]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="right",
        color="#0b5394",
    )
    axes.set(xlabel="characters seen, millions", ylabel="nats per character")
    # the first steps fall from ln(vocabulary); what follows is what one looks at
    later = [row["nats"] for row in facts["train"][len(facts["train"]) // 50 :]]
    low = min([*later, *(row["nats"] for row in facts["held_out"])])
    axes.set_ylim(low - 0.05 * (max(later) - low) - 0.02, max(later) + 0.05)
    bits = axes.secondary_yaxis(
        "right", functions=(lambda n: n / np.log(2), lambda b: b * np.log(2))
    )
    bits.set_ylabel("bits per character")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines["top"].set_visible(False)
    return figure


def write_report(
    out: Path, facts: dict[str, Any], sampling: Sampling, written: str
) -> Path:
    """Writes `loss.png` and `report.html` into the folder and returns the page."""
    settings, nats = facts["settings"], facts["held_out"][-1]["nats"]
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": 11}):
        loss_figure(facts).savefig(buffer, format="png", dpi=160)
    (out / "loss.png").write_bytes(buffer.getvalue())
    chars = facts["step"] * settings["batch"] * settings["window"]
    body = html.escape(written[len(sampling.prompt) :])
    page = PAGE.format(
        title=f"Character {settings['cell'].upper()} on {html.escape(facts['text'])}",
        nats=nats,
        bits=nats / np.log(2),
        perplexity=np.exp(nats),
        summary=f"{chars:,} characters seen in {facts['step']:,} steps and "
        f"{facts['seconds'] / 60:.1f} minutes ({chars / facts['seconds']:,.0f} "
        f"characters per second, compilation and evaluation included); "
        f"{facts['weights']:,} weights.",
        figure=base64.b64encode(buffer.getvalue()).decode(),
        sampling=f"Temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
        f"seed {sampling.seed}" + ("; the prompt in blue." if sampling.prompt else "."),
        sample=f"<b>{html.escape(sampling.prompt)}</b>{body}",
        settings=table({"text": facts["text"], **settings}),
        versions=table(versions()),
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
