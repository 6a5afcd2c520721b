"""From settings to a run, and from its model to tags and scores."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from nervaluate import Evaluator

from experiments import buckets
from experiments.buckets import Bucket
from experiments.fit import Fit
from experiments.tagging import corpus
from experiments.tagging.corpus import Corpus, Encoded, Letters, Sentence, Vocabulary
from experiments.tagging.model import Tagger, decode, loss
from experiments.tagging.settings import Settings


class Batch(NamedTuple):
    words: np.ndarray  # (B, T)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    tags: np.ndarray  # (B, T)
    forms: np.ndarray | None  # (B, T) rows of the letters
    letters: np.ndarray | None  # (N, L, P) of the distinct words of the batch
    letter_lengths: np.ndarray | None  # (N,)


def bucketed(
    rows: Sequence[Encoded], letters: Letters, settings: Settings
) -> list[Bucket]:
    """Batches of about `settings.batch` words, of sentences of like length."""

    def bucket(width: int, own: list[int]) -> Bucket:
        size = max(1, settings.batch // width)
        most = most_distinct([rows[i].forms for i in own], size)

        def collate(chosen: Any) -> Batch:
            fields = zip(*(rows[i] for i in chosen), strict=True)
            padded = [buckets.pad(field, size, width) for field in fields]
            (words, lengths), (forms, _), (tags, _) = padded
            spelt = (None, None, None)
            if settings.letters:
                spelt = distinct(forms, letters, most)
            return Batch(words, lengths, tags, *spelt)

        return Bucket(own, size, collate)

    lengths = [len(row.words) for row in rows]
    by_width = buckets.by_width(lengths, corpus.widths(settings))
    return [bucket(width, own) for width, own in by_width.items()]


def most_distinct(forms: list[np.ndarray], size: int) -> int:
    """Distinct words that a batch is hardly ever above, from some batches by chance."""
    chance = random.Random(0)
    draw = lambda: chance.sample(forms, min(size, len(forms)))
    most = max(len(np.unique(np.concatenate(draw()))) for _ in range(50))
    return 1 + most + most // 8  # and one for what fills the batch


def distinct(
    forms: np.ndarray, letters: Letters, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the letters of the distinct words, and these, filled up to `most`."""
    found, rows = np.unique(forms, return_inverse=True)
    # one shape to compile for, and seldom a second one
    own = np.zeros(most if len(found) <= most else forms.size + 1, np.int32)
    own[: len(found)] = found
    rows = rows.reshape(forms.shape).astype(np.int32)
    return rows, letters.parts[own], letters.lengths[own]


def make_model(settings: Settings, facts: dict[str, Any]) -> Tagger:
    """The model for the vocabulary among the facts."""
    vocabulary = Vocabulary(**facts["vocabulary"])
    return Tagger(settings, vocabulary, rngs=nnx.Rngs(settings.seed))


def make(settings: Settings, loaded: Corpus) -> tuple[Fit, dict[str, Any]]:
    """A run over the data, and its facts."""
    facts = {"vocabulary": loaded.vocabulary._asdict(), "digest": loaded.digests[0]}
    rows, letters = corpus.encode(loaded.train, loaded.vocabulary, settings)
    own = bucketed(corpus.cut(rows, settings), letters, settings)
    batches = buckets.endless(own, settings.seed)
    words = sum(len(row.words) for row in rows)
    per_step = round(words / sum(len(bucket.rows) / bucket.size for bucket in own))
    rows, letters = corpus.encode(loaded.validation, loaded.vocabulary, settings)
    held_out = buckets.once(bucketed(corpus.cut(rows, settings), letters, settings))
    held_out = [batch for batch, _ in held_out]
    fit = Fit(
        settings, make_model(settings, facts), loss, batches, held_out,
        per_step=per_step,
    )  # fmt: skip
    fit.unit = "character" if settings.data == "python" else "word"
    facts["per_step"] = per_step
    return fit, facts


class Answers:
    """The tags that a model gives to sentences of any length."""

    def __init__(self, model: Tagger, settings: Settings, vocabulary: Vocabulary):
        self.model, self.settings, self.vocabulary = model, settings, vocabulary

    def __call__(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        rows, letters = corpus.encode(sentences, self.vocabulary, self.settings)
        width = self.settings.longest
        places = [
            (row, *window)
            for row, encoded in enumerate(rows)
            for window in corpus.windows(len(encoded.words), width, width // 4)
        ]
        pieces = [
            Encoded(*(field[start:end] for field in rows[row]))
            for row, start, end, _, _ in places
        ]
        names = self.vocabulary.tags
        found = [[""] * len(row.words) for row in rows]
        for batch, chosen in buckets.once(bucketed(pieces, letters, self.settings)):
            tags = np.asarray(decode(self.model, batch))
            for own, piece in zip(tags, chosen, strict=False):
                row, start, _, low, high = places[piece]
                kept = own[low - start : high - start]
                found[row][low:high] = [names[tag] for tag in kept]
        return found


def scores(said: list[list[str]], loaded: Corpus) -> dict[str, float]:
    """Per cent: of tags that are right, and of entities by strict comparison."""
    truth = [s.tags for s in loaded.test]
    right = [
        (word, tag == other)
        for s, tags in zip(loaded.test, said, strict=True)
        for word, tag, other in zip(s.words, s.tags, tags, strict=True)
    ]
    mean = lambda values: 100 * sum(values) / len(values)
    found = {"accuracy": mean([ok for _, ok in right])}
    if corpus.has_entities(loaded.vocabulary.tags):
        strict = by_type(truth, said)["all"]
        values = strict.f1, strict.precision, strict.recall
        names = ("F1", "precision", "recall")
        found |= {k: 100 * v for k, v in zip(names, values, strict=True)}
    met = {word for s in loaded.train for word in s.words}
    new = [ok for word, ok in right if word not in met]
    if new and isinstance(loaded.test[0].words, list):
        found["accuracy, words not met"] = mean(new)
    return found


def by_type(truth: list[list[str]], said: list[list[str]]) -> dict[str, Any]:
    """nervaluate's counts and scores of entities: of "all", and of each type."""
    types = sorted({tag[2:] for tags in (*truth, *said) for tag in tags if tag != "O"})
    results = Evaluator(truth, said, types, loader="list").evaluate()
    own = {name: kind["strict"] for name, kind in sorted(results["entities"].items())}
    return {"all": results["overall"]["strict"], **own}


def title(settings: Settings) -> str:
    return Path(settings.data).name
