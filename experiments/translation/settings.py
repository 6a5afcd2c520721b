"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

MODELS = ("plain", "bahdanau", "luong", "transformer")
MULTI30K_TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


@dataclass(frozen=True)
class Settings:
    data: str = "dates"
    target: str | None = None
    header: bool = False
    lower: bool = False
    joined: int = 1
    pieces: int = 0
    longest: int = 100
    model: str = "bahdanau"
    cell: str = "lstm"
    layers: int = 1
    hidden: int = 96
    embedding: int = 48
    heads: int = 4
    score: str | None = None
    feed: bool = False
    dropout: float = 0.1
    label_smoothing: float = 0.0
    tokens: int = 2048
    steps: int = 400
    warmup: int = 100
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    held_out: float = 0.05
    seed: int = 0


# what differs from the above for a data set, and for a model on it
PRESETS: dict[str, dict[str, Any]] = {
    "dates": {},
    "multi30k": {
        "lower": True,
        "pieces": 4000,
        "longest": 220,
        "hidden": 256,
        "embedding": 256,
        "dropout": 0.25,
        "label_smoothing": 0.1,
        "tokens": 1024,
        "steps": 5500,
        "warmup": 200,
        "learning_rate": 4e-3,
    },
}
PRESETS["tatoeba_ko"] = {**PRESETS["multi30k"], "pieces": 2000, "dropout": 0.4,
                         "steps": 1500}  # fmt: skip
PRESETS["chatbot_ko"] = {**PRESETS["multi30k"], "lower": False, "steps": 2000}
OWN = {**PRESETS["multi30k"], "lower": False}  # data of the user's
TRANSFORMER = {"hidden": 192, "layers": 3, "dropout": 0.15, "learning_rate": 2e-3}
# the score "general" is lost under Adam: see the README
LUONG = {"score": "additive", "feed": True}


def defaults(data: str, model: str) -> Settings:
    """The settings of a data set and a model, where the user gives no others."""
    preset = PRESETS.get(data, OWN)
    more = TRANSFORMER if model == "transformer" and data != "dates" else {}
    more = LUONG if model == "luong" else more
    return Settings(**{**preset, **more, "data": data, "model": model})
