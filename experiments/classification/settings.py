"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

MODELS = ("rnn", "lstm", "bilstm", "gru", "each", "bag")
FEED_FORWARD = ("each", "bag")
POOLINGS = ("last", "mean", "max", "attention")
IMAGES = ("digits", "digits_pixels", "digits_permuted",
          "mnist", "mnist_pixels", "mnist_permuted")  # fmt: skip
TEXTS = ("mr", "sst2", "sst5", "trec", "nsmc")


# options that only a recurrent model has, and only texts
OF_RECURRENT = ("pooling", "layers")
OF_TEXTS = ("units", "least", "longest", "embedding", "shuffled", "word_dropout")


@dataclass(frozen=True)
class Settings:
    data: str = "digits"
    model: str = "lstm"
    pooling: str = "last"
    layers: int = 1
    hidden: int = 64
    embedding: int = 64
    units: str = "words"
    least: int = 2
    longest: int = 128
    shuffled: bool = False
    dropout: float = 0.2
    word_dropout: float = 0.0
    batch: int = 50
    steps: int = 1000
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0


TEXT: dict[str, Any] = {
    "model": "bilstm",
    "pooling": "max",
    "hidden": 128,
    "embedding": 128,
    "dropout": 0.5,
    "word_dropout": 0.1,
    "steps": 1400,
    "learning_rate": 2e-3,
}
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


def defaults(data: str) -> Settings:
    """The settings of a data set, where the user gives no others."""
    return Settings(**{**PRESETS.get(data, TEXT), "data": data})
