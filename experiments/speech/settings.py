"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

from experiments.frame.options import learning_rate, option, seed, steps, weight_decay

DATA = ("morse", "fsdd")


@dataclass(frozen=True)
class Settings:
    data: str = option(
        "morse",
        "Morse code, made here, or the Free Spoken Digit Dataset, a folder of which "
        "--data-dir names",
        choices=DATA,
    )
    speaker: str | None = option(
        None,
        "of fsdd, who is heard in the test only; without it the test has recordings 0 "
        "to 4 of each speaker and digit",
    )
    digits: int = option(3, "most digits of a string", low=2)
    strings: int = option(500, "strings that the test has", low=4)
    stack: int = option(3, "frames of 10 ms that are one step of the network")
    center: bool = option(
        True,
        "subtract each band's mean over the sound, and scale all bands to variance 1",
    )
    layers: int = option(1, "bidirectional layers")
    hidden: int = option(96, "width of the state, of each direction")
    dropout: float = option(0.1, "probability", high=0.95, fixed=False)
    augment: bool = option(
        False, "train on other speeds, on noise and with bands left out"
    )
    beam: int = option(16, "strings kept in the search, when tested")
    batch: int = option(32, "strings of a batch")
    steps: int = steps(1000)
    learning_rate: float = learning_rate(5e-3)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights, training strings and dropout")


# what differs from the above for a data set
PRESETS: dict[str, dict[str, Any]] = {
    "morse": {},
    "fsdd": {"digits": 5, "layers": 2, "hidden": 128, "dropout": 0.3, "augment": True,
             "center": False, "steps": 1200, "learning_rate": 3e-3},
}  # fmt: skip


def preset(given: dict[str, Any]) -> Settings:
    """The settings of a data set, where the user gives no others."""
    data = given.get("data", Settings.data)
    return Settings(**{**PRESETS[data], "data": data})
