"""The page of one run: error rates, a string with its posteriors, confusions."""

import base64
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.frame.experiment import Evaluation, Run
from experiments.frame.page import confusion_figure, grid, loss_figure, save_figure
from experiments.speech import audio
from experiments.speech.audio import HOP, RATE, wav
from experiments.speech.data import Example, batches, title
from experiments.speech.model import Heard, Recogniser, decode, scores
from experiments.speech.settings import Settings

OTHER = "none or more"  # than one digit heard


def label(settings: dict[str, Any]) -> str:
    layers = settings["layers"]
    name = f"BiLSTM, {layers} layer{'s' * (layers > 1)} of {settings['hidden']}"
    return name + ", other speeds and noise" * settings["augment"]


def string_figure(model: Recogniser, example: Example, settings: Settings) -> Figure:
    """What the network is given, and under it what it says, against time."""
    frames = audio.log_mel(example.sound, settings.center)
    ((batch, _),) = batches([example], settings)
    _, p = decode(model, batch.x, batch.lengths, beam=settings.beam)
    p = np.asarray(p)[0, : batch.lengths[0]]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    seconds = len(frames) * HOP / RATE
    loudest = 3 if settings.center else 2
    above.imshow(
        frames.T, origin="lower", aspect="auto", cmap="magma", vmin=-2, vmax=loudest,
        extent=(0, seconds, 0, audio.BANDS), interpolation="nearest",
    )  # fmt: skip
    ticks = np.array([250, 500, 1000, 2000, 3500])
    at = np.interp(ticks, audio.mel_bands()[1:-1], np.arange(audio.BANDS) + 0.5)
    above.set_yticks(at, [f"{f:,}" for f in ticks])
    above.set_ylabel("Hz")
    time = (np.arange(len(p)) + 0.5) * settings.stack * HOP / RATE
    below.fill_between(time, p[:, 0], color="#ddd", label="blank", lw=0)
    for digit in sorted(set(p.argmax(1)[p.argmax(1) > 0] - 1)):
        below.plot(time, p[:, digit + 1], label=str(digit), lw=1.5)
    below.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.02))
    below.legend(frameon=False, ncols=12, loc="lower left", bbox_to_anchor=(0, 1),
                 fontsize=9, borderpad=0, handlelength=1)  # fmt: skip
    below.spines[["top", "right"]].set_visible(False)
    return figure


def counts(heard: list[Heard]) -> np.ndarray:
    """How often each digit was heard as each, `(10, 11)`; the last is all else."""
    found = np.zeros((10, 11), int)
    for said, greedy, _ in heard:
        found[int(said), int(greedy) if len(greedy) == 1 else 10] += 1
    return found


def player(example: Example) -> str:
    """The sound, to be heard in the page."""
    sound = base64.b64encode(wav(example.sound)).decode()
    return f'<p><audio controls src="data:audio/wav;base64,{sound}"></audio></p>'


def by_size(heard: list[Heard]) -> list[list[Any]]:
    """Rows of a table: strings of each number of digits."""
    size, rows = lambda h: len(h.said.split()), []
    for n, own in groupby(sorted(heard, key=size), key=size):
        lot = [*own]
        rows.append([n, len(lot), *(f"{value:.2f}" for value in scores(lot).values())])
    return rows


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures, sounds and tables of a run."""
    settings, out = run.settings, run.out
    singles, strings = evaluation.answers
    telling = lambda row: (len(row[0].digits), len(set(row[0].digits)))
    pairs = zip(run.data.tests["strings"][:20], strings, strict=False)
    shown, heard = max(pairs, key=telling)
    wrong = [row for row in strings if not row.said == row.greedy == row.beam]
    head = [*evaluation.results[0].scores]
    lines = [[result.title, *(f"{v:.2f}" for v in result.scores.values())]
             for result in evaluation.results]  # fmt: skip
    digits = [*map(str, range(10))]
    names = {"xlabel": "heard", "ylabel": "said"}
    confused = confusion_figure(counts(singles), digits, [*digits, OTHER], **names)
    loss = loss_figure(run.facts, settings.batch, "strings", "digit")
    body = f"""{grid(["in percent", *head], lines)}
<h2>A string of the test: said {heard.said}, heard {heard.greedy or "nothing"}</h2>
{save_figure(string_figure(run.model, shown, settings), out / "string.png")}
{player(shown)}
<h2>By the number of digits</h2>
{grid(["digits", "strings", *head], by_size([*singles, *strings]))}
<h2>Single digits</h2>
{save_figure(confused, out / "confusion.png")}
<h2>Strings: {len(wrong):,} of {len(strings):,} with an error, and others</h2>
{grid(["said", "greedy", "beam"], [*map(list, [*wrong[:12], *strings[:6]])])}
<h2>Training</h2>
{save_figure(loss, out / "loss.png")}"""
    return f"{label(asdict(settings))}: {title(settings)}", body
