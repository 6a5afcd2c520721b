"""The page of one run: error rates, a string with its posteriors, confusions."""

import base64
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments.page import (
    confusion_figure,
    grid,
    loss_figure,
    save_figure,
    table,
    versions,
    write_page,
)
from experiments.speech import audio, train
from experiments.speech.audio import HOP, RATE, wav
from experiments.speech.corpus import Corpus, Example
from experiments.speech.model import Recogniser
from experiments.speech.settings import Settings
from experiments.speech.train import Heard

OTHER = "none or more"  # than one digit heard


def label(settings: dict[str, Any]) -> str:
    layers = settings["layers"]
    name = f"BiLSTM, {layers} layer{'s' * (layers > 1)} of {settings['hidden']}"
    return name + ", other speeds and noise" * settings["augment"]


def posteriors(model: Recogniser, x: np.ndarray) -> np.ndarray:
    """The probabilities of blank and digits at each step, `(T, 11)`."""
    run = nnx.jit(lambda model, x, lengths: jax.nn.softmax(model(x, lengths)))
    return np.asarray(run(model, x[None], np.array([len(x)])))[0]


def string_figure(model: Recogniser, example: Example, settings: Settings) -> Figure:
    """What the network is given, and under it what it says, against time."""
    frames = audio.log_mel(example.sound, settings.center)
    p = posteriors(model, audio.stacked(frames, settings.stack))
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


def counts(heard: list[str], examples: list[Example]) -> np.ndarray:
    """How often each digit was heard as each, `(10, 11)`; the last is all else."""
    found = np.zeros((10, 11), int)
    for said, example in zip(heard, examples, strict=True):
        found[example.digits[0], int(said) if len(said) == 1 else 10] += 1
    return found


def player(example: Example) -> str:
    """The sound, to be heard in the page."""
    sound = base64.b64encode(wav(example.sound)).decode()
    return f'<p><audio controls src="data:audio/wav;base64,{sound}"></audio></p>'


def by_size(heard: dict[str, Heard], loaded: Corpus) -> list[list[Any]]:
    """Rows of a table: strings of each number of digits."""
    lots: dict[int, list[tuple[Example, str, str]]] = {}
    for name, examples in loaded.tests.items():
        for row in zip(examples, *heard[name], strict=True):
            lots.setdefault(len(row[0].digits), []).append(row)
    rows = []
    for n, lot in sorted(lots.items()):
        examples, greedy, beam = map(list, zip(*lot, strict=True))
        found = train.scores(Heard(greedy, beam), examples)
        rows.append([n, len(lot), *(f"{value:.2f}" for value in found.values())])
    return rows


def write_report(
    out: Path,
    facts: dict[str, Any],
    found: list[dict[str, Any]],
    model: Recogniser,
    loaded: Corpus,
    heard: dict[str, Heard],
) -> Path:
    """The page of a run, with its figures, in the folder of the run."""
    settings = Settings(**facts["settings"])
    test, singles = loaded.tests["strings"], loaded.tests["single digits"]
    shown = max(test[:20], key=lambda e: (len(e.digits), len(set(e.digits))))
    rows = [*map(list, zip(train.truth(test), *heard["strings"], strict=True))]
    wrong = [row for row in rows if row[0] != row[1] or row[0] != row[2]]
    head = [*found[0]["scores"]]
    lines = [[r["title"], *(f"{v:.2f}" for v in r["scores"].values())] for r in found]
    found_of = dict(zip(map(id, test), heard["strings"].greedy, strict=True))
    digits = [*map(str, range(10))]
    names = {"xlabel": "heard", "ylabel": "said"}
    confused = counts(heard["single digits"].greedy, singles)
    confused = confusion_figure(confused, digits, [*digits, OTHER], **names)
    loss = loss_figure(facts, settings.batch, "strings", "digit")
    body = f"""<p class="big">Word error rate <b>{found[0]["scores"]["WER"]:.2f}%</b>
on single digits, <b>{found[1]["scores"]["WER"]:.2f}%</b> on strings, greedily
decoded.</p>
<p>{facts["step"]:,} steps in {facts["seconds"] / 60:.1f} minutes, compilation and
evaluation included; {facts["weights"]:,} weights.</p>
{grid(["in percent", *head], lines)}
<h2>A string of the test: said {" ".join(map(str, shown.digits))}, heard
{found_of[id(shown)] or "nothing"}</h2>
{save_figure(string_figure(model, shown, settings), out / "string.png")}
{player(shown)}
<h2>By the number of digits</h2>
{grid(["digits", "strings", *head], by_size(heard, loaded))}
<h2>Single digits</h2>
{save_figure(confused, out / "confusion.png")}
<h2>Strings: {len(wrong):,} of {len(rows):,} with an error, and others</h2>
{grid(["said", "greedy", "beam"], [*wrong[:12], *rows[:6]])}
<h2>Training</h2>
{save_figure(loss, out / "loss.png")}
<h2>Settings</h2>
{table(facts["settings"])}
<h2>Versions and device</h2>
{table(versions())}"""
    return write_page(out / "report.html", f"{label(facts['settings'])}: "
                      f"{train.title(settings)}", body)  # fmt: skip
