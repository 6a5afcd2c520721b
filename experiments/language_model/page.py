"""The page of a run: its losses and what it writes."""

import html
from typing import Any

from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import loss_figure, save_figure
from experiments.language_model.data import title


def name(cell: str) -> str:
    """As one writes it: layer-norm LSTM, GRU."""
    *kind, base = cell.rsplit("-", 1)
    return " ".join([*kind, base.upper()])


def label(settings: dict[str, Any]) -> str:
    return f"{name(settings['cell'])} {settings['hidden']}"


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    settings, asked, prompt = run.settings, run.asked, run.asked["prompt"]
    losses = loss_figure(run.facts, run.data.per_step, "characters", "character")
    how = f"Temperature {asked['temperature']:g}, top-p {asked['top_p']:g}, seed "
    how += f"{settings.seed}" + ("; the prompt in blue." if prompt else ".")
    written = html.escape(evaluation.answers[len(prompt) :])
    body = f"""{save_figure(losses, run.out / "loss.png")}
<h2>Sample</h2>
<p>{how}</p>
<pre><b>{html.escape(prompt)}</b>{written}</pre>"""
    return f"Character {name(settings.cell)} on {title(settings)}", body
