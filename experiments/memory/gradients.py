"""How much of the gradient is left after so many steps.

Differentiated is the state after the last step, with respect to that after an earlier
one: h_T by h_t, where an LSTM's c_t is held fixed, and for an LSTM its whole state
(h_T, c_T) by (h_t, c_t). It is the product of the Jacobians of single steps.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from experiments.frame.page import grid, save_figure, table, write_page
from experiments.memory.page import COLOURS, tidy
from experiments.memory.settings import Settings

# the models, by the name of their folder; chrono's --span is the length
MODELS: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "rnn-relu": {"cell": "rnn-relu"},
    "irnn": {"cell": "irnn"},
    "lstm-0": {"cell": "lstm", "forget_bias": 0.0},
    "lstm-1": {"cell": "lstm", "forget_bias": 1.0},
    "lstm-3": {"cell": "lstm", "forget_bias": 3.0},
    "lstm-chrono": {"cell": "lstm", "span": "length"},
    "gru": {"cell": "gru"},
}


def steps(layer: Any, x: Array) -> Array:
    """∂s_t/∂s_{t-1} of each step of a recurrent module over `x` `(T, D)`: `(T, S, S)`.

    The state s begins at zero; it is `h`, and of an LSTM (h, c) side by side.
    """
    state, _ = layer(x[:0])
    flat, restore = ravel_pytree(state)

    def step(s: Array, x: Array) -> Array:
        return ravel_pytree(layer(x[None], restore(s))[0])[0]

    body = lambda s, x: (step(s, x), jax.jacfwd(step)(s, x))
    return lax.scan(body, flat, x)[1]


def norms(layer: Any, x: Array, H: int) -> tuple[Array, Array]:
    """Norms of ∂h_T/∂h_t and of ∂s_T/∂s_t by the distance T - t, each `(T + 1,)`.

    The norm is Frobenius' over the root of the width: that of the identity is 1, and
    a gradient of any direction is this much smaller, in the root of the mean square.
    """
    size = lambda J: jnp.linalg.norm(J) / len(J) ** 0.5
    both = lambda J: (size(J[:H, :H]), size(J))

    def back(J: Array, step: Array) -> tuple[Array, Any]:
        J = J @ step
        return J, both(J)

    jacobians = steps(layer, x)
    start = jnp.eye(jacobians.shape[1], dtype=x.dtype)
    _, found = lax.scan(back, start, jacobians, reverse=True)
    # the scan puts the last step's at the end
    join = lambda first, rest: jnp.concatenate([first[None], rest[::-1]])
    h, s = map(join, both(start), found)
    return h, s


@partial(nnx.jit, static_argnums=2)
def mean_norms(layer: Any, x: Array, H: int) -> tuple[Array, Array]:
    """The means of `norms` over sequences `(N, T, D)`, one after the other."""
    h, s = lax.map(lambda x: norms(layer, x, H), x)
    return h.mean(0), s.mean(0)


def gradient_figure(rows: list[dict[str, Any]]) -> Figure:
    """Norms against the distance, at the start and after training."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    dashes = {0.0: ":", 1.0: "-", 3.0: "--"}
    low = 1e-8
    for axes, when in zip(panels, ("at initialisation", "after training"), strict=True):
        for row in (row for row in rows if row["when"] == when):
            settings = row["settings"]
            chrono = settings["span"] is not None
            dash = "-." if chrono else dashes.get(settings["forget_bias"], "-")
            y = np.maximum(row["h"], low / 10)
            axes.plot(y, dash, color=COLOURS[settings["cell"]], label=row["model"])
        axes.set_yscale("log")
        tidy(axes, xlabel="steps between, $T - t$", title=when)
    top = max(max(row["h"]) for row in rows)
    panels[0].set_ylim(low, 10 * max(1.0, min(top, 1e6)))
    panels[0].set_ylabel(r"$\|\partial h_T / \partial h_t\|_F\,/\,\sqrt{H}$")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=4)
    return figure


def write_gradients(out: Path, rows: list[dict[str, Any]], settings: Settings) -> Path:
    figure = save_figure(gradient_figure(rows), out / "gradients.png")
    T = settings.length
    at = sorted({1, 10, T // 2, T} & {*range(1, T + 1)})
    head = ["model", "when", "of", *(f"{k} steps" for k in at), "error in the test"]
    lines = [
        [row["model"], row["when"], name, *(f"{row[of][k]:.1e}" for k in at),
         "" if row["error"] is None else f"{row['error']:.4f}"]
        for row in rows
        for of, name in (("h", "h"), ("state", "(h, c)"))
        if of == "h" or row["settings"]["cell"] == "lstm"
    ]  # fmt: skip
    about = {"steps of training": settings.steps, "hidden": settings.hidden,
             "batch": settings.batch, "seed": settings.seed}  # fmt: skip
    body = f"""<p>How much of a gradient with respect to the last hidden state is left
after so many steps: the Frobenius norm of ∂h<sub>T</sub>/∂h<sub>t</sub> over the root
of the width, the mean of {rows[0]["sequences"]} sequences of the problem of
{settings.task}, {T} steps. Of an LSTM, h by h with the cell held fixed, in the figure,
and the whole state (h, c) by (h, c), in the table.</p>
{figure}
{grid(head, lines)}
<h2>Settings</h2>
{table(about)}"""
    return write_page(out / "report.html", "What vanishes: gradients", body)
