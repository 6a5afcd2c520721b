"""What a run is made of; it stands in the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from experiments.frame.options import (
    file_or_name,
    learning_rate,
    option,
    seed,
    steps,
    weight_decay,
)

PARTS_OF_SPEECH = ("ud_en_ewt", "ud_ko_gsd", "ud_ko_kaist")
ENTITIES = ("wnut17", "kmou_ner")
# options that are of a CoNLL file of one's own, and not of .conllu
OF_COLUMNS = ("columns", "header", "comments", "mark")
# options that change nothing without --letters
OF_LETTERS = ("jamo", "letter_hidden", "letter_embedding", "longest_word")


@dataclass(frozen=True)
class Settings:
    data: str = option(
        "python",
        f"python (the source of its library), {', '.join(PARTS_OF_SPEECH)}, "
        f"{', '.join(ENTITIES)}, or a CoNLL file: first column the word, last the tag "
        "(.conllu: FORM and UPOS)",
        kind=file_or_name,
    )
    dev: str | None = option(
        None, "such a file to validate on; else a tenth of --data", kind=file_or_name
    )
    test: str | None = option(
        None, "such a file to test on; else a tenth of --data", kind=file_or_name
    )
    columns: str | None = option(
        None,
        "what the columns of such a file are, such as _,word,tag (default: the first "
        "the word, the last the tag)",
    )
    header: bool | None = option(
        None, "its first row names its columns (default: if it calls them word and tag)"
    )
    comments: str | None = option(
        None,
        "what its comments start with, '' if it has none (default: #, if the line has "
        "not as many columns as the others)",
    )
    mark: str | None = option(
        None,
        "what lines that mark a document start with, as in --mark=-DOC, '' if there "
        "are none (default: -DOCSTART-)",
    )
    letters: bool = option(
        False, "read the letters of each word by a BiLSTM of their own"
    )
    jamo: bool = option(False, "read the parts of each letter too, such as jamo")
    crf: bool = option(
        False, "score whole sequences by a CRF, not each tag by a softmax"
    )
    layers: int = option(1, "recurrent layers over the words")
    hidden: int = option(96, "width of their state, of each direction")
    embedding: int = option(32, "width of a word's vector")
    letter_hidden: int = option(
        48, "width of the state over letters, of each direction"
    )
    letter_embedding: int = option(32, "width of a letter's vector")
    least: int = option(2, "times that a word of the vocabulary is met")
    longest: int = option(256, "words that are read at a time", low=8)
    longest_word: int = option(16, "letters of a word that are read", low=2)
    dropout: float = option(0.1, "probability", high=0.95, fixed=False)
    word_dropout: float = option(
        0.0, "probability that a word is unknown", high=0.95, fixed=False
    )
    batch: int = option(2048, "words of a batch, padding included")
    steps: int = steps(3600)
    learning_rate: float = learning_rate(6e-3)
    weight_decay: float = weight_decay(0.01)
    seed: int = seed("of weights, order and dropout")


WORDS: dict[str, Any] = {
    "letters": True, "hidden": 128, "embedding": 96, "longest": 128, "dropout": 0.5,
    "word_dropout": 0.1, "batch": 1536, "steps": 1500, "learning_rate": 3e-3,
}  # fmt: skip
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


def preset(given: Mapping[str, Any]) -> Settings:
    """The settings of the data set, where the user gives no others."""
    data = given.get("data", Settings.data)
    found = Settings(**{**PRESETS.get(data, WORDS), "data": data})
    return found if given.get("letters", True) else replace(found, jamo=False)
