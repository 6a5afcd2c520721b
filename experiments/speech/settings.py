"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

DATA = ("morse", "fsdd")


@dataclass(frozen=True)
class Settings:
    data: str = "morse"
    speaker: str | None = None
    digits: int = 3
    strings: int = 500
    stack: int = 3
    center: bool = True
    layers: int = 1
    hidden: int = 96
    dropout: float = 0.1
    augment: bool = False
    beam: int = 16
    batch: int = 32
    steps: int = 1000
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    seed: int = 0


# what differs from the above for a data set
PRESETS: dict[str, dict[str, Any]] = {
    "morse": {},
    "fsdd": {"digits": 5, "layers": 2, "hidden": 128, "dropout": 0.3, "augment": True,
             "center": False, "steps": 1200, "learning_rate": 3e-3},
}  # fmt: skip


def defaults(data: str) -> Settings:
    """The settings of a data set, where the user gives no others."""
    return Settings(**{**PRESETS[data], "data": data})
