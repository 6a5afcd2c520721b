"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

TASKS = ("adding", "copy")
CELLS = ("rnn", "rnn-relu", "irnn", "lstm", "gru")
# cells and how they begin, as `sweep` names them; chrono's --span is the length
BEGINNINGS: dict[str, dict[str, Any]] = {
    **{cell: {"cell": cell} for cell in CELLS},
    "lstm-chrono": {"cell": "lstm", "span": "length"},
    "gru-chrono": {"cell": "gru", "span": "length"},
}


@dataclass(frozen=True)
class Settings:
    task: str = "adding"
    length: int = 100
    cell: str = "lstm"
    hidden: int = 64
    forget_bias: float = 1.0
    span: int | None = None
    batch: int = 50
    steps: int = 1500
    learning_rate: float = 1e-2
    weight_decay: float = 0.0
    seed: int = 0


# what differs from the above for a task, and for cells without gates
PRESETS: dict[str, dict[str, Any]] = {
    "adding": {},
    "copy": {"length": 20, "hidden": 128, "steps": 6000, "learning_rate": 5e-3},
}
UNGATED: dict[str, Any] = {"learning_rate": 1e-3}
# those of `gradients`, where many small models are trained
SMALL: dict[str, Any] = {"length": 60, "hidden": 32, "steps": 600}


def defaults(task: str, cell: str) -> Settings:
    """The settings of a task and a cell, where the user gives no others."""
    own = PRESETS[task] | ({} if cell in ("lstm", "gru") else UNGATED)
    return Settings(**own, task=task, cell=cell)
