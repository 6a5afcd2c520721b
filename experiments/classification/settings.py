"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import (
    columns,
    file_or_name,
    header,
    learning_rate,
    option,
    seed,
    separator,
    steps,
    weight_decay,
)

MODELS = ("rnn", "lstm", "bilstm", "gru", "each", "bag")
FEED_FORWARD = ("each", "bag")
POOLINGS = ("last", "mean", "max", "attention")
IMAGES = ("digits", "digits_pixels", "digits_permuted",
          "mnist", "mnist_pixels", "mnist_permuted")  # fmt: skip
TEXTS = ("mr", "sst2", "sst5", "trec", "nsmc")
# options that only a recurrent model has, and only texts
OF_RECURRENT = ("pooling", "layers")
OF_TABLES = ("columns", "header", "separator")  # of one's own
OF_TEXTS = ("units", "least", "longest", "embedding", "shuffled", "word_dropout")


@dataclass(frozen=True)
class Settings:
    data: str = option(
        "digits",
        f"{', '.join((*IMAGES, *TEXTS))}, or a table of texts and labels (.tsv, .csv)",
        kind=file_or_name,
    )
    columns: str | None = columns("text", "label")
    header: bool | None = header("text", "label")
    separator: str | None = separator()
    model: str = option("lstm", "each and bag are feed-forward", choices=MODELS)
    pooling: str = option("last", "over time, of a recurrent model", choices=POOLINGS)
    layers: int = option(1, "recurrent layers")
    hidden: int = option(64, "width of the state, of each direction")
    embedding: int = option(64, "width of a token's vector")
    units: str = option("words", "what a token is", choices=("words", "characters"))
    least: int = option(2, "times that a token of the vocabulary is met")
    longest: int = option(128, "tokens of a text that are read")
    shuffled: bool = option(False, "put the words of each text in random order")
    dropout: float = option(0.2, "probability", high=0.95, fixed=False)
    word_dropout: float = option(
        0.0, "probability that a token is unknown", high=0.95, fixed=False
    )
    batch: int = option(50, "examples of a batch")
    steps: int = steps(1000)
    learning_rate: float = learning_rate(3e-3)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights, order and dropout")


TEXT: dict[str, Any] = {
    "model": "bilstm", "pooling": "max", "hidden": 128, "embedding": 128,
    "dropout": 0.5, "word_dropout": 0.1, "steps": 1400, "learning_rate": 2e-3,
}  # fmt: skip
PIXELS = {"hidden": 96, "dropout": 0.0, "steps": 3000}
MNIST = {"hidden": 128, "dropout": 0.1, "batch": 100, "steps": 6000}
# what differs from the above for a data set
PRESETS: dict[str, dict[str, Any]] = {
    "digits": {},
    "digits_pixels": PIXELS,
    "digits_permuted": PIXELS,
    "mnist": {**MNIST, "steps": 3000},
    "mnist_pixels": MNIST,
    "mnist_permuted": MNIST,
    "mr": TEXT,
    "sst2": TEXT,
    "sst5": TEXT,
    "trec": {**TEXT, "steps": 1000},
    "nsmc": {**TEXT, "units": "characters", "embedding": 96, "longest": 140,
             "dropout": 0.3, "batch": 100, "steps": 5800},
}  # fmt: skip


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a data set, where the user gives no others."""
    data = given.get("data", Settings.data)
    return Settings(**{**PRESETS.get(data, TEXT), "data": data})
