"""What single units of an LSTM keep: their cells and forget gates over a text.

The forget gate is not among what a step returns, but it is how much of the old cell
goes into the new one: f_t = ∂c_t/∂c_{t-1}, with h_{t-1} held fixed. It is asked of the
step as a derivative, and so none of the cell's equations stands here.
"""

import html
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from matplotlib.figure import Figure

from experiments.frame.page import save_figure, table, write_page
from experiments.memory.page import BLUE, tidy


def trace(recurrent: Any, x: Array, layer: int) -> tuple[Array, Array]:
    """Cells and forget gates of a layer of LSTMs over `x` `(T, D)`, each `(T, H)`."""
    start = recurrent.zeros()
    ones = jnp.ones_like(start[layer].c)

    def step(state: Any, x: Array) -> tuple[Any, tuple[Array, Array]]:
        def cell(c: Array) -> tuple[Array, Any]:
            own = state[layer]._replace(c=c)
            old = (*state[:layer], own, *state[layer + 1 :])
            new, _ = recurrent.step(old, x)
            return new[layer].c, new

        c, forget, new = jax.jvp(cell, (state[layer].c,), (ones,), has_aux=True)
        return new, (c, forget)

    return lax.scan(step, start, x)[1]


@nnx.jit(static_argnames="layer")
def read(model: Any, tokens: Array, *, layer: int) -> tuple[Array, Array]:
    """`trace` of a language model over tokens `(T,)`."""
    return trace(model.recurrent, model.embed(tokens), layer)


def running(text: str, step: Callable[[int, str], int]) -> list[int]:
    """A number carried over the characters, from 0."""
    found, now = [], 0
    for char in text:
        now = step(now, char)
        found.append(now)
    return found


def indented(text: str) -> list[int]:
    """The spaces that the line so far begins with."""
    found: list[int] = []
    for line in text.splitlines(keepends=True):
        width = len(line) - len(line.lstrip(" "))
        found += [min(i, width) for i in range(1, len(line) + 1)]
    return found


def visible(text: str) -> dict[str, np.ndarray]:
    """What a reader can see at each character: names, and numbers `(T,)`."""
    brackets = {"(": 1, "[": 1, ")": 0, "]": 0}  # one that is not closed ends too
    toggle = lambda mark: lambda on, char: on ^ (char == mark)
    found = {
        "place in the line": running(text, lambda n, c: 0 if c == "\n" else n + 1),
        "place in the word": running(text, lambda n, c: n + 1 if c.isalnum() else 0),
        "indentation": indented(text),
        "inside brackets": running(text, lambda on, c: brackets.get(c, on)),
        'inside "quotes"': running(text, toggle('"')),
        "inside `quotes`": running(text, toggle("`")),
        "a capital": [char.isupper() for char in text],
        "after a line's end": [char == "\n" for char in text],
    }
    return {name: np.array(values, float) for name, values in found.items()}


class Found(NamedTuple):
    what: str
    unit: int
    correlation: float


def correlations(values: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of numbers `(T,)` with each column of `(T, H)`; 0 where either is constant."""
    values, c = values - values.mean(), c - c.mean(0)
    scale = np.sqrt(np.square(values).sum() * np.square(c).sum(0))
    return np.divide(values @ c, scale, out=np.zeros(c.shape[1]), where=scale > 1e-9)


def telling(text: str, c: np.ndarray) -> list[Found]:
    """For each thing visible the unit whose cell says it best, the best first."""
    found = []
    for name, values in visible(text).items():
        r = correlations(values, np.tanh(c))
        unit = int(np.abs(r).argmax())
        found.append(Found(name, unit, float(r[unit])))
    found.sort(key=lambda f: -abs(f.correlation))
    return [f for f in found if f.correlation]


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
    about: dict[str, Any], shown: int,
) -> Path:  # fmt: skip
    """The page: the text as each of the units sees it."""
    parts = [save_figure(spans_figure(forget), out / "spans.png")]
    for what, unit, r in units:
        why = f": {html.escape(what)}, correlation {r:.2f}" if what else ""
        cell, gate = np.tanh(c[:shown, unit]), forget[:shown, unit]
        mean = forget[:, unit].mean()
        parts.append(f"""<h2>Unit {unit}{why}</h2>
<p>Its cell, tanh c:</p>{coloured(text[:shown], cell)}
<p>Its forget gate, {mean:.2f} on the average:</p>{coloured(text[:shown], gate)}""")
    chosen = (
        f"Units were chosen by how well their cells go with what a reader sees, over "
        f"{len(text):,} characters."
        if any(unit.what for unit in units)
        else ""
    )
    body = f"""<p>Blue is near 1, red near -1. A forget gate of 1 keeps the cell, one of
0 empties it. The colour of a character is what the unit has after reading it.
{chosen}</p>
{"".join(parts)}
<h2>Model</h2>
{table(about)}"""
    return write_page(out / "report.html", "What units of an LSTM keep", body)
