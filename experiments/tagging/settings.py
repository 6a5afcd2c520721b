"""What a run is made of; it stands in the checkpoint."""

from dataclasses import dataclass
from typing import Any

PARTS_OF_SPEECH = ("ud_en_ewt", "ud_ko_gsd", "ud_ko_kaist")
ENTITIES = ("wnut17", "kmou_ner")
# options that change nothing without --letters
OF_LETTERS = ("jamo", "letter_hidden", "letter_embedding", "longest_word")


@dataclass(frozen=True)
class Settings:
    data: str = "python"
    dev: str | None = None
    test: str | None = None
    letters: bool = False
    jamo: bool = False
    crf: bool = False
    layers: int = 1
    hidden: int = 96
    embedding: int = 32
    letter_hidden: int = 48
    letter_embedding: int = 32
    least: int = 2
    longest: int = 256
    longest_word: int = 16
    dropout: float = 0.1
    word_dropout: float = 0.0
    batch: int = 2048
    steps: int = 3600
    learning_rate: float = 6e-3
    weight_decay: float = 0.01
    seed: int = 0


WORDS: dict[str, Any] = {
    "letters": True,
    "hidden": 128,
    "embedding": 96,
    "longest": 128,
    "dropout": 0.5,
    "word_dropout": 0.1,
    "batch": 1536,
    "steps": 1500,
    "learning_rate": 3e-3,
}
KOREAN = {**WORDS, "jamo": True, "letter_hidden": 64, "letter_embedding": 48}
# what differs from the settings above for a data set
PRESETS: dict[str, dict[str, Any]] = {
    "python": {},
    "ud_en_ewt": {**WORDS, "steps": 2200},
    "ud_ko_gsd": {**KOREAN, "steps": 750},
    "ud_ko_kaist": {**KOREAN, "steps": 2800},
    "wnut17": {**WORDS, "crf": True, "steps": 1000},
    "kmou_ner": {**KOREAN, "crf": True, "steps": 1500},
}


def defaults(data: str) -> Settings:
    """The settings of a data set, where the user gives no others."""
    return Settings(**{**PRESETS.get(data, WORDS), "data": data})
