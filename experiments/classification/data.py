"""Data sets as sequences with a label: images read in pieces, texts as tokens."""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import datasets
from experiments.classification.mnist import mnist
from experiments.classification.settings import IMAGES, Settings
from experiments.classification.texts import Rows, texts
from experiments.frame import buckets
from experiments.frame.buckets import Bucket
from experiments.frame.data import Data, digest
from experiments.frame.errors import InputError

PAD, UNKNOWN = 0, 1


class Example(NamedTuple):
    x: Any  # tokens, or inputs (T, D)
    label: int
    text: str  # what it was; empty for an image


class Batch(NamedTuple):
    x: np.ndarray  # tokens (B, T), or inputs (B, T, D)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    labels: np.ndarray  # (B,)


# what the labels of the files stand for, in their order
SENTIMENT = ["negative", "positive"]
FIVE = ["very negative", "negative", "neutral", "positive", "very positive"]
QUESTIONS = ["description", "entity", "abbreviation", "person", "place", "number"]
NAMES = {"mr": SENTIMENT, "sst2": SENTIMENT, "nsmc": SENTIMENT, "sst5": FIVE,
         "trec": QUESTIONS}  # fmt: skip


def load(settings: Settings, data_dir: Path | None) -> Data:
    """A data set by its name, or of a file."""
    if settings.data in IMAGES:
        return images(settings, data_dir)
    return of_texts(texts(settings, data_dir), settings)


def of_texts(parts: list[Rows], settings: Settings) -> Data:
    """Training, validation and test texts; the vocabulary is made of the first."""
    if settings.shuffled:
        parts = [[(mixed(text, i), y) for i, (text, y) in enumerate(p)] for p in parts]
    labels = sorted({label for part in parts for _, label in part})
    if len(labels) < 2:
        raise InputError(f"--data {settings.data}: all texts have the label {labels}")
    vocabulary = make_vocabulary((text for text, _ in parts[0]), settings)
    index = {token: i for i, token in enumerate(vocabulary, UNKNOWN + 1)}
    every = (len(tokens(text, settings)) for part in parts for text, _ in part)
    if cut := sum(n > settings.longest for n in every):
        n = f"--longest {settings.longest}"
        print(f"{title(settings)}: texts that are cut to {n}: {cut:,}", file=sys.stderr)
    encoded = [
        [Example(encode(t, index, settings), labels.index(y), t) for t, y in part]
        for part in parts
    ]
    facts = {
        "vocabulary": vocabulary,
        "labels": NAMES.get(settings.data, labels),
        "features": None,
    }
    return made(encoded, [parts, parts[2]], facts, settings)


def made(
    parts: list[list[Example]], known: list[Any], facts: dict, settings: Settings
) -> Data:
    """Of three parts; `known` are all data and those of the test, for the digests."""
    train, validation, test = parts
    words = facts["vocabulary"]
    size = "" if words is None else f"; a vocabulary of {len(words):,}"
    held_out = buckets.once(bucketed(validation, settings.batch))
    return Data(
        train=buckets.Endless(bucketed(train, settings.batch), settings.seed),
        held_out=[batch for batch, _ in held_out],
        tests={"test": test},
        digests=dict(zip(("all", "test"), map(digest, known), strict=True)),
        facts=facts,
        about=f"{title(settings)}: {len(train):,} to train on, "
        f"{len(validation):,} held out, {len(test):,} to test, "
        f"{len(facts['labels'])} labels{size}.",
        per_step=settings.batch,
    )


def title(settings: Settings) -> str:
    name = Path(settings.data).name
    return f"{name}, words shuffled" if settings.shuffled else name


def mixed(text: str, seed: int) -> str:
    """The words of a text in random order."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def tokens(text: str, settings: Settings) -> list[str]:
    text = text.lower()
    return text.split() if settings.units == "words" else list(" ".join(text.split()))


def make_vocabulary(texts: Any, settings: Settings) -> list[str]:
    """What is met `least` times, the frequent first."""
    counts = Counter(token for text in texts for token in tokens(text, settings))
    known = [(-n, token) for token, n in counts.items() if n >= settings.least]
    return [token for _, token in sorted(known)]


def encode(text: str, index: dict[str, int], settings: Settings) -> list[int]:
    """Tokens, at most `longest`; an empty text is one unknown token."""
    found = tokens(text, settings)[: settings.longest]
    return [index.get(token, UNKNOWN) for token in found] or [UNKNOWN]


def images(settings: Settings, data_dir: Path | None) -> Data:
    """Handwritten digits as sequences of rows, of pixels, or of permuted pixels."""
    name, _, order = settings.data.partition("_")
    pixels, labels, parts = datasets.digits() if name == "digits" else mnist(data_dir)
    if order:
        pixels = pixels.reshape(len(pixels), -1, 1)
    if order == "permuted":
        pixels = pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]
    examples = [[Example(pixels[i], int(labels[i]), "") for i in p] for p in parts]
    known = [[pixels[list(part)], labels[list(part)]] for part in parts]
    facts = {
        "vocabulary": None,
        "labels": [*map(str, range(10))],
        "features": pixels.shape[-1],
    }
    return made(examples, [known, known[2]], facts, settings)


def widths(examples: Sequence[Example]) -> tuple[int, ...]:
    """Those to pad to: that of the images, or some for texts."""
    images = not isinstance(examples[0].x, list)
    return (len(examples[0].x),) if images else (12, 20, 32, 52, 84, 140)


def bucketed(examples: list[Example], size: int) -> list[Bucket]:
    padded = widths(examples)

    def bucket(width: int, rows: list[int]) -> Bucket:
        def collate(rows: Any, B: int) -> Batch:
            x, lengths = buckets.pad([examples[i].x for i in rows], B, width)
            labels = [examples[i].label for i in rows]
            labels += [0] * (B - len(rows))
            return Batch(x, lengths, np.array(labels, np.int32))

        return Bucket(rows, size, collate)

    by_width = buckets.by_width([len(e.x) for e in examples], padded)
    return [bucket(width, rows) for width, rows in by_width.items()]
