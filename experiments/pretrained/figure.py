"""The figure of a recording: its samples, and how likely each moment is speech."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pretrained.voice import CHUNK, RATE, stretches

COLUMNS = 1200  # of the waveform: more than the figure has pixels in width
BLUE, GREY = "#0b5394", "#9ab"


def envelope(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, and the least and the most of the samples from each to the next."""
    n = max(1, -(-len(samples) // COLUMNS))
    parts = np.arange(0, len(samples), n)
    low = np.minimum.reduceat(samples, parts)
    return parts / RATE, low, np.maximum.reduceat(samples, parts)


def speech_figure(samples: np.ndarray, chances: np.ndarray) -> Figure:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes: Any = figure.subplots()
    loudest = float(np.abs(samples).max()) or 1.0
    t, low, high = envelope(samples / loudest)
    axes.fill_between(t, low, high, color=GREY, linewidth=0.4)
    for start, end in stretches(chances):
        axes.axvspan(start, end, color=BLUE, alpha=0.12, linewidth=0)
    # each chance is of the 32 ms before
    at = np.repeat(np.arange(len(chances) + 1) * (CHUNK / RATE), 2)[1:-1]
    line = axes.twinx()
    line.plot(at, np.repeat(chances, 2), color=BLUE, linewidth=1.4)
    line.axhline(0.5, color=BLUE, linewidth=0.6, linestyle=":")
    line.set(ylim=(-1.04, 1.04), yticks=[0, 0.5, 1])
    line.set_ylabel("probability of speech", color=BLUE, y=0.75)
    line.tick_params(axis="y", colors=BLUE)
    axes.set(xlim=(0, len(samples) / RATE), ylim=(-1.04, 1.04), yticks=[])
    axes.set(xlabel="seconds", ylabel="sound")
    axes.set_title("shaded: taken for speech", loc="left", color=BLUE, fontsize=10)
    for both in (axes, line):
        both.spines[["top", "left", "right"]].set_visible(False)
    return figure
