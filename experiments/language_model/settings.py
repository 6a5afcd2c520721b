"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import (
    file_or_name,
    learning_rate,
    option,
    seed,
    steps,
    weight_decay,
)

CELLS = ("rnn", "lstm", "gru", "mgu", "layer-norm-lstm", "multiplicative-lstm")


@dataclass(frozen=True)
class Settings:
    data: str | None = option(
        None,
        "UTF-8 text file, tinyshakespeare or warpeace; without it, Python's own "
        "documentation",
        kind=file_or_name,
        fixed=False,
    )
    held_out: float = option(0.1, "share of the text, at its end", high=0.9, above=True)
    cell: str = option("lstm", "from mgu on those of examples/cells", choices=CELLS)
    layers: int = option(1, "layers, one over the other")
    hidden: int = option(256, "width of the state")
    embedding: int = option(32, "width of a character's vector")
    dropout: float = option(
        0.2, "probability, between layers and at the head", high=0.95, fixed=False
    )
    batch: int = option(32, "streams of text read side by side")
    window: int = option(64, "steps of truncated backpropagation")
    steps: int = steps(2600)
    learning_rate: float = learning_rate(6e-3)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights, text offsets, dropout and sample")


def preset(given: dict[str, Any]) -> Settings:
    return Settings()
