"""The experiment: the tags that a model gives, how well, and `tag`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import datasets
from experiments.frame import buckets, files
from experiments.frame.errors import refuse
from experiments.frame.experiment import Evaluation, Experiment, Result, Run, load
from experiments.frame.page import write_page
from experiments.tagging import data, model, page
from experiments.tagging.corpus import FILES, Sentence
from experiments.tagging.data import Corpus
from experiments.tagging.entities import scheme
from experiments.tagging.model import Tagger, decode
from experiments.tagging.settings import OF_COLUMNS, OF_LETTERS, Settings, preset
from experiments.tagging.vocabulary import Encoded, Vocabulary, encode


def check(settings: Settings, given: dict[str, Any]) -> None:
    if settings.data in ("python", *FILES):
        refuse(given, OF_COLUMNS, f"with the data {settings.data}")
    if settings.data not in FILES:
        refuse(given, ["data_dir"], f"with the data {settings.data}")
    if not settings.letters:
        refuse(given, OF_LETTERS, "without --letters")


class Answers:
    """The tags that a model gives to sentences of any length."""

    def __init__(self, model: Tagger, settings: Settings, vocabulary: Vocabulary):
        self.model, self.settings, self.vocabulary = model, settings, vocabulary

    def __call__(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        rows, letters = encode(sentences, self.vocabulary, self.settings)
        width = self.settings.longest
        places = [
            (row, *window)
            for row, encoded in enumerate(rows)
            for window in data.windows(len(encoded.words), width, width // 4)
        ]
        pieces = [
            Encoded(*(field[start:end] for field in rows[row]))
            for row, start, end, _, _ in places
        ]
        names = self.vocabulary.tags
        found = [[""] * len(row.words) for row in rows]
        for batch, chosen in buckets.once(
            data.bucketed(pieces, letters, self.settings)
        ):
            tags = np.asarray(decode(self.model, batch))
            for said, piece in zip(tags, chosen, strict=False):
                row, start, _, low, high = places[piece]
                kept = said[low - start : high - start]
                found[row][low:high] = [names[tag] for tag in kept]
        return found


def scores(said: list[list[str]], loaded: Corpus) -> dict[str, float]:
    """Per cent: of tags that are right, and of entities by strict comparison."""
    right = [
        (word, tag == other)
        for s, tags in zip(loaded.test, said, strict=True)
        for word, tag, other in zip(s.words, s.tags, tags, strict=True)
    ]
    mean = lambda values: 100 * sum(values) / len(values)
    found = {"accuracy": mean([ok for _, ok in right])}
    if scheme(loaded.vocabulary.tags):
        strict = page.by_type(loaded.truth, said)["all"]
        values = strict.f1, strict.precision, strict.recall
        names = ("F1", "precision", "recall")
        found |= {k: 100 * v for k, v in zip(names, values, strict=True)}
    met = {word for s in loaded.train for word in s.words}
    new = [ok for word, ok in right if word not in met]
    if new and isinstance(loaded.test[0].words, list):
        found["accuracy, words not met"] = mean(new)
    return found


def evaluate(run: Run) -> Evaluation:
    loaded, title = run.data.tests["test"], f"{data.title(run.settings)}, test"
    said = Answers(run.model, run.settings, loaded.vocabulary)(loaded.test)
    found = scores(said, loaded)
    shown = ", ".join(f"{name} **{value:.2f}%**" for name, value in found.items())
    headline = f"{title}: {shown}, of {sum(map(len, said)):,} {run.data.unit}s."
    return Evaluation([Result(title, run.data.digests["test"], found)], headline, said)


DIGITS = {"accuracy": 2}
EXPERIMENT = Experiment("Tagging", preset, data, model, page, evaluate, check, DIGITS)


def tag(run: Path, input: Path | None, out: Path | None) -> int:
    """Words with their tags, a sentence a line; or a page of coloured source."""
    _, settings, facts, model, *_ = load(EXPERIMENT, run)
    answers = Answers(model, settings, Vocabulary(**facts["vocabulary"]))
    if settings.data == "python":
        text = (
            "\n".join([*datasets.typed(), ""])
            if input is None
            else datasets.read(input)
        )
        name = "source" if input is None else input.name
        tags = answers([Sentence(text, [])])[0]
        made = f"{page.legend()}\n{page.coloured(text, tags)}"
        written = write_page(out or run / "tagged.html", name, made)
        print(f"Coloured: {written}")
        return 0
    # what is typed is answered line by line, a file as a whole
    pieces = (
        ([line] for line in datasets.typed())
        if input is None
        else [datasets.lines(input)]
    )
    written = []
    for lines in pieces:
        sentences = [Sentence(line.split(), []) for line in lines]
        there = [s for s in sentences if s.words]
        tags = iter(answers(there) if there else [])
        for words, _ in sentences:
            pairs = zip(words, next(tags) if words else [], strict=True)
            row = " ".join(f"{word}/{tag}" for word, tag in pairs)
            written.append(row)
            if out is None:
                print(row, flush=True)
    if out is not None:
        files.write(out, "".join(f"{row}\n" for row in written))
    return 0
