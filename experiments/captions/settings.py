"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass

ENCODERS = ("rows", "pixels")


@dataclass(frozen=True)
class Settings:
    encoder: str = "rows"
    hidden: int = 96
    embedding: int = 32
    dropout: float = 0.2
    beam: int = 4
    batch: int = 64
    steps: int = 1500
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0
