"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import learning_rate, option, seed, steps, weight_decay

TASKS = ("adding", "copy")
CELLS = ("rnn", "rnn-relu", "irnn", "indrnn", "lstm", "gru")
# cells and how they begin, as `sweep` names them; chrono's --span is the length
BEGINNINGS: dict[str, dict[str, Any]] = {
    **{cell: {"cell": cell} for cell in CELLS},
    "lstm-chrono": {"cell": "lstm", "span": "length"},
    "gru-chrono": {"cell": "gru", "span": "length"},
}
OF_A_CELL = ("cell", "forget_bias", "span")  # what a beginning says


@dataclass(frozen=True)
class Settings:
    task: str = option("adding", "the problem", choices=TASKS)
    length: int = option(
        100, "steps to add over, or between the symbols and their copy"
    )
    cell: str = option(
        "lstm",
        "irnn is relu that begins with the identity, indrnn two layers in which a unit "
        "sees its own past alone",
        choices=CELLS,
    )
    hidden: int = option(64, "width of the state")
    forget_bias: float = option(1.0, "of an LSTM", low=-100)
    span: int | None = option(
        None,
        "chrono: gates of an LSTM or a GRU that stay open for up to so many steps",
        low=2,
    )
    batch: int = option(50, "sequences of a batch")
    steps: int = steps(1500)
    learning_rate: float = learning_rate(1e-2, "; 0.001 for rnn, rnn-relu and irnn")
    weight_decay: float = weight_decay(0.0)
    seed: int = seed("of weights and sequences")


# what differs from the above for a task, and for Elman networks
PRESETS: dict[str, dict[str, Any]] = {
    "adding": {},
    "copy": {"length": 20, "hidden": 128, "steps": 6000, "learning_rate": 5e-3},
}
ELMAN: dict[str, Any] = {"learning_rate": 1e-3}
# those of `gradients`, where many small models are trained
SMALL: dict[str, Any] = {"length": 60, "hidden": 32, "steps": 600}


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a task and a cell, where the user gives no others."""
    task = given.get("task", Settings.task)
    cell = given.get("cell", Settings.cell)
    own = PRESETS[task] | (ELMAN if cell in ("rnn", "rnn-relu", "irnn") else {})
    return Settings(**own, task=task, cell=cell)
