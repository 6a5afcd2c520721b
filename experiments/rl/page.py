"""Figures: returns as they grow, with what can be expected of other seeds."""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments import datasets
from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import grid, save_figure
from experiments.rl.tasks import title

NAMES = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN", "mlp": "MLP"}
COLOURS = {"gru": "#38761d", "lstm": "#0b5394", "rnn": "#cc7a00", "mlp": "#888"}
LIGHTER = {"gru": "#93c47d", "lstm": "#6fa8dc", "rnn": "#f1c232", "mlp": "#bbb"}
STYLES = "-", "--", ":", "-."  # of a network's first run, and others
SCORES = {"tmaze": "success, %", "repeat": "answers right, %",
          "cartpole": "balanced, % of the steps"}  # fmt: skip


def score_name(task: str) -> str:
    return SCORES.get(task, "score")


def label(settings: dict[str, Any]) -> str:
    """The network, and how its chunks begin if not as is the default."""
    name = NAMES[settings["network"]]
    if settings["network"] == "mlp":
        return name
    if settings["begin"] == "zeros":
        name += ", from zeros"
    if settings["burn_in"] == 0:
        name += ", no burn-in"
    return name


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of `(seeds, rows)` and their 95% confidence interval, by Student's t."""
    n, mean = len(values), values.mean(0)
    if n == 1:
        return mean, mean, mean
    half = stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def filled(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """`(seeds, rows)`; where no episode ended, the value of the row before."""
    found = np.array([row[name] for row in rows], float)
    for i in range(1, len(found)):
        found[i] = np.where(np.isnan(found[i]), found[i - 1], found[i])
    return found.T


def curves(runs: list[dict[str, Any]]) -> Figure:
    """Returns and scores of runs of one task, each `{"label", "settings", "rows"}`."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    task, met = runs[0]["settings"]["task"], []
    names = {"return": "return of an episode", "score": score_name(task)}
    for run in runs:
        settings, network = run["settings"], run["settings"]["network"]
        before = met.count(network)
        colour = (LIGHTER if before else COLOURS)[network]
        style = STYLES[before % len(STYLES)]
        met.append(network)
        each = settings["envs"] * settings["rollout"] / 1e3
        for axes, name in zip(panels, names, strict=True):
            x = np.array([row["step"] for row in run["rows"]]) * each
            y = filled(run["rows"], name)
            if name == "score" and task in SCORES:
                y = 100 * y
            x, y = x[~np.isnan(y).any(0)], y[:, ~np.isnan(y).any(0)]
            mean, low, high = band(y)
            axes.plot(x, mean, style, color=colour, label=run["label"])
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    for axes, name in zip(panels, names.values(), strict=True):
        axes.set(xlabel="steps of a policy's environments, thousands", title=name)
        axes.title.set_size(10.5)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    chance = {"tmaze": 50, "repeat": 25}.get(task)
    if chance:
        how = {"color": "#222", "linestyle": ":", "linewidth": 1}
        panels[1].axhline(chance, label="chance", **how)
    if task in SCORES:
        panels[1].set_ylim(0, 102)
    handles = panels[1].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=5)
    return figure


def page(run: Run, evaluation: Evaluation, curve: dict[str, Any]) -> tuple[str, str]:
    """The title, and the figure and the table of a run."""
    settings, facts, seeds = run.settings, run.facts, evaluation.answers
    ratio = evaluation.results[0].scores["ratio off by"]
    took = (
        f"{facts['seconds'] / 60:.1f} minutes of training, {curve['rate']:,.0f} steps "
        f"of all environments a second, compilation included; {facts['weights']:,} "
        f"weights. The ratio of the first minibatch after each rollout was within "
        f"{ratio:.1e} of 1."
    )
    each = zip(seeds["returns"], seeds["of_seeds"], strict=True)
    lines = [
        [seed, f"{gained:.3f}", f"{score:.3f}"]
        for seed, (gained, score) in enumerate(each, settings.seed)
    ]
    name = label(asdict(settings))
    figure = curves([{**curve, "label": name}])
    body = f"""<p>{html.escape(took)}</p>
{save_figure(figure, run.out / "returns.png")}
{grid(["seed", "return in the test", "score in the test"], lines)}"""
    return f"{name}: {title(settings.task, settings.length)}", body


def figures(out: Path, rows: list[dict[str, Any]], runs: Sequence[Path]) -> str:
    """What stands under the tables of several runs: a figure for each task."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in (p for run in runs for p in sorted(Path(run).glob("**/curve.json"))):
        run = json.loads(datasets.read(path))
        settings = run["settings"]
        name = title(settings["task"], settings["length"])
        found.setdefault(name, []).append({**run, "label": label(settings)})
    parts = []
    for name, own in found.items():
        file = "".join(c if c.isalnum() else "-" for c in name.lower())
        parts.append(f"<h2>{html.escape(name)}: while they learn</h2>")
        numbers = sorted({run["settings"]["seeds"] for run in own})
        seeds = " or ".join(map(str, numbers))
        parts.append(f"<p>Means over {seeds} seeds and their 95% confidence intervals "
                     "(Student's t), of the episodes in training.</p>")  # fmt: skip
        parts.append(save_figure(curves(own), out / f"returns-{file}.png"))
        lines = [[run["label"], f"{run['rate']:,.0f}"] for run in own]
        parts.append(grid(["network", "steps a second, all seeds together"], lines))
    return "\n".join(parts)
