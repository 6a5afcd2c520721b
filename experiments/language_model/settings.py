"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    data: str | None = None
    held_out: float = 0.1
    cell: str = "lstm"
    layers: int = 1
    hidden: int = 256
    embedding: int = 32
    dropout: float = 0.2
    batch: int = 32
    window: int = 64
    steps: int = 2600
    learning_rate: float = 6e-3
    weight_decay: float = 0.01
    seed: int = 0
