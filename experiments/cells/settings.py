"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import learning_rate, option, seed, steps, weight_decay

CELLS = ("rnn", "lstm", "gru", "mgu", "layer-norm-lstm", "slstm", "mingru")
# two data sets of each kind but adding: one that Python brings, one to be downloaded
TEXTS = {"documentation": None, "shakespeare": "tinyshakespeare"}
TAGGED = {"source": "python", "ewt": "ud_en_ewt"}
TASKS = ("adding", *TAGGED, *TEXTS)
# cells whose gates do not read the state see the past from a second layer on alone
LAYERS = {"mingru": 2}


@dataclass(frozen=True)
class Settings:
    task: str = option("adding", "what is learnt", choices=TASKS)
    cell: str = option("lstm", "what the recurrent layer is made of", choices=CELLS)
    budget: int = option(20_000, "weights of the recurrent part, to one in twenty")
    embedding: int = option(32, "width of the vector of a word or character")
    length: int = option(50, "steps that are read at a time", low=2)
    batch: int = option(50, "sequences of a batch, or words with their padding")
    steps: int = steps(500)
    learning_rate: float = learning_rate(8e-3)
    weight_decay: float = weight_decay(0.0)
    seed: int = seed("of weights and order")


_TAGGING: dict[str, Any] = {"length": 32, "batch": 1024, "steps": 300}
_TEXT: dict[str, Any] = {"length": 64, "batch": 16, "steps": 1000}
# what differs from the above for a task
PRESETS: dict[str, dict[str, Any]] = {
    "adding": {},
    **dict.fromkeys(TAGGED, _TAGGING),
    **dict.fromkeys(TEXTS, _TEXT),
}


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a task, where the user gives no others."""
    task = given.get("task", Settings.task)
    return Settings(**PRESETS[task], task=task)
