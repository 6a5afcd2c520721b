"""The report of a run: one HTML page and its figure."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from experiments.language_model.sample import Sampling
from experiments.page import loss_figure, save_figure, table, versions, write_page

BODY = """<p class="big">Held-out text: <b>{nats:.4f}</b> nats,
<b>{bits:.4f}</b> bits per character, perplexity <b>{perplexity:.3f}</b>.</p>
<p>{summary}</p>
{figure}
<h2>Sample</h2>
<p>{sampling}</p>
<pre>{sample}</pre>
<h2>Settings</h2>
{settings}
<h2>Versions and device</h2>
{versions}"""


def write_report(
    out: Path, facts: dict[str, Any], sampling: Sampling, written: str
) -> Path:
    """Writes `loss.png` and `report.html` into the folder and returns the page."""
    settings, nats = facts["settings"], facts["held_out"][-1]["nats"]
    per_step = settings["batch"] * settings["window"]
    chars = facts["step"] * per_step
    figure = loss_figure(facts, per_step, "characters", "character")
    sample = html.escape(written[len(sampling.prompt) :])
    body = BODY.format(
        nats=nats,
        bits=nats / np.log(2),
        perplexity=np.exp(nats),
        summary=f"{chars:,} characters seen in {facts['step']:,} steps and "
        f"{facts['seconds'] / 60:.1f} minutes ({chars / facts['seconds']:,.0f} "
        f"characters per second, compilation and evaluation included); "
        f"{facts['weights']:,} weights.",
        figure=save_figure(figure, out / "loss.png"),
        sampling=f"Temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
        f"seed {sampling.seed}" + ("; the prompt in blue." if sampling.prompt else "."),
        sample=f"<b>{html.escape(sampling.prompt)}</b>{sample}",
        settings=table({"text": facts["text"], **settings}),
        versions=table(versions()),
    )
    title = f"Character {settings['cell'].upper()} on {facts['text']}"
    return write_page(out / "report.html", title, body)
