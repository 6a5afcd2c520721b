"""The page of one run: images beside their names in each language."""

import base64
import html
import io
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure

from experiments.captions.data import Part
from experiments.captions.names import LANGUAGES, TABLE
from experiments.frame.experiment import Evaluation, Run
from experiments.frame.fonts import drawable, fonts
from experiments.frame.page import grid, loss_figure, save_figure


def label(settings: dict[str, Any]) -> str:
    read = "an LSTM over rows" if settings["encoder"] == "rows" else "a layer of pixels"
    return f"{read}, {settings['hidden']}"


def right(row: list[str], digit: int) -> list[bool]:
    return [name == TABLE[k][digit] for k, name in enumerate(row)]


def figure(test: Part, said: list[list[str]], rows: list[int]) -> Figure:
    """Images over their names, in the languages whose letters the fonts have."""
    own = fonts()
    known = [k for k, names in enumerate(TABLE) if drawable(names, own)]
    size = (8, 1 + 0.2 * len(known))
    made = Figure(figsize=size, layout="constrained")
    for axes, i in zip(made.subplots(1, len(rows), squeeze=False).flat, rows,
                       strict=True):  # fmt: skip
        axes.imshow(test.images[i], cmap="gray_r")
        axes.axis("off")
        axes.set_anchor("N")
        for line, k in enumerate(known):
            name = said[i][k] if drawable([said[i][k]], own) else "?"
            axes.annotate(
                name, (0.5, 0), xycoords="axes fraction", xytext=(0, -10 - 14 * line),
                textcoords="offset points", ha="center", va="baseline", size=8.5,
                fontfamily=own,
            )  # fmt: skip
    return made


def picture(pixels: np.ndarray) -> str:
    """The image as an element of a page."""
    buffer = io.BytesIO()
    image.imsave(buffer, np.kron(pixels, np.ones((5, 5))), cmap="gray_r", vmin=0,
                 vmax=1, format="png")  # fmt: skip
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="an image of the test" src="data:image/png;base64,{data}">'


def named(test: Part, said: list[list[str]], rows: list[int]) -> str:
    """A table of images and their names; what is wrong is struck out."""
    head = "".join(f"<th>{name}</th>" for name in ("", *LANGUAGES))
    lines = [head]
    for i in rows:
        names = zip(said[i], right(said[i], test.digits[i]), strict=True)
        mark = lambda name, ok: (
            html.escape(name) if ok else f"<s>{html.escape(name)}</s>"
        )
        cells = [picture(test.images[i]), *(mark(*pair) for pair in names)]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    rows_of = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div style="overflow-x:auto; font-size:.8rem"><table>{rows_of}</table></div>'
    )


def page(run: Run, evaluation: Evaluation) -> tuple[str, str]:
    """The title, and the figures and tables of a run."""
    test, said = run.data.tests["test"], evaluation.answers
    scores = evaluation.results[0].scores
    firsts = [int(np.flatnonzero(test.digits == digit)[0]) for digit in range(10)]
    wrong = [i for i, row in enumerate(said) if not all(right(row, test.digits[i]))]
    mistakes = f"<h2>Not right in all</h2>{named(test, said, wrong[:12])}" * bool(wrong)
    loss = loss_figure(run.facts, run.settings.batch, "names", "letter")
    rows = [[name, f"{scores[name]:.2f}"] for name in LANGUAGES]
    body = f"""{save_figure(figure(test, said, firsts), run.out / "captions.png")}
<h2>One image, ten names</h2>
{named(test, said, firsts)}
{mistakes}
<h2>By language</h2>
{grid(["", "right, %"], rows)}
<h2>Training</h2>
{save_figure(loss, run.out / "loss.png")}"""
    return f"Captions in ten languages: {label(asdict(run.settings))}", body
