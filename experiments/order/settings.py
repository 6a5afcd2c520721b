"""The tasks, and what their models are made of."""

from dataclasses import replace
from typing import Any

from experiments.classification.settings import Settings
from experiments.classification.settings import preset as preset_of_data

# feed-forward, blind to order; then recurrent
MODELS = ("each", "bag", "rnn", "lstm", "gru")
# what differs from classification for tasks made here
TASKS: dict[str, dict[str, Any]] = {
    "first": {"hidden": 32, "embedding": 16, "dropout": 0.0, "steps": 600,
              "learning_rate": 5e-3},
    "sentences": {"pooling": "max", "hidden": 96, "embedding": 64, "dropout": 0.3,
                  "batch": 64, "steps": 1000, "learning_rate": 4e-3},
}  # fmt: skip
BINARY = (*TASKS, "sst2", "mr")  # two classes, as many of each


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a task, where the user gives no others."""
    task = given.get("data", "first")
    found = Settings(**TASKS[task]) if task in TASKS else preset_of_data(given)
    return replace(found, data=task, model="lstm")


FIRST = preset({})
