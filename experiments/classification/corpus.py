"""Data sets as sequences with a label: images read in pieces, texts as tokens."""

import gzip
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import data, fit
from experiments.classification.settings import IMAGES, TEXTS, Settings
from experiments.errors import InputError

PAD, UNKNOWN = 0, 1


class Example(NamedTuple):
    x: Any  # tokens, or inputs (T, D)
    label: int
    text: str  # what it was; empty for an image


class Corpus(NamedTuple):
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: list[str]
    vocabulary: list[str] | None  # tokens from UNKNOWN + 1 on; None for images
    digests: list[str]  # of all, and of the test part


Rows = list[tuple[str, str]]  # texts and labels
# what the labels of the files stand for, in their order
SENTIMENT = ["negative", "positive"]
FIVE = ["very negative", "negative", "neutral", "positive", "very positive"]
QUESTIONS = ["description", "entity", "abbreviation", "person", "place", "number"]
NAMES = {"mr": SENTIMENT, "sst2": SENTIMENT, "nsmc": SENTIMENT, "sst5": FIVE,
         "trec": QUESTIONS}  # fmt: skip


def load(settings: Settings, data_dir: Path | None) -> Corpus:
    """The three parts; the vocabulary is made of the first."""
    if settings.data in IMAGES:
        return images(settings, data_dir)
    return from_texts(texts(settings, data_dir), settings)


def from_texts(parts: list[Rows], settings: Settings) -> Corpus:
    """Training, validation and test texts as sequences of tokens."""
    if settings.shuffled:
        parts = [[(mixed(text, i), y) for i, (text, y) in enumerate(p)] for p in parts]
    labels = sorted({label for part in parts for _, label in part})
    if len(labels) < 2:
        raise InputError(f"--data {settings.data}: all texts have the label {labels}")
    vocabulary = make_vocabulary((text for text, _ in parts[0]), settings)
    index = {token: i for i, token in enumerate(vocabulary, UNKNOWN + 1)}
    encoded = [
        [Example(encode(t, index, settings), labels.index(y), t) for t, y in part]
        for part in parts
    ]
    digests = [fit.digest(parts), fit.digest(parts[2])]
    train, validation, test = encoded
    names = NAMES.get(settings.data, labels)
    return Corpus(train, validation, test, names, vocabulary, digests)


def texts(settings: Settings, data_dir: Path | None) -> list[Rows]:
    """Training, validation and test texts with their labels."""
    name = settings.data
    fetch = lambda file: data.fetch(name[:3] if "sst" in name else name, file, data_dir)
    sentence = lambda row: row[0]
    if name in ("sst2", "sst5"):
        kind = "binary" if name == "sst2" else "fine"
        files = (f"stsa.{kind}.{part}" for part in ("train", "dev", "test"))
        return [data.labelled(fetch(file)) for file in files]
    if name == "trec":
        whole, test = (
            data.labelled(fetch(f"TREC.{part}.all"), "cp1252")
            for part in ("train", "test")
        )
        return [*held_out(whole, 500), test]
    if name == "nsmc":
        whole, test = (
            [
                (text, label)
                for (_, text, label), _ in data.table(
                    fetch(f"ratings_{part}.txt"), 3, header=True, quoted=True
                )
            ]
            for part in ("train", "test")
        )
        return [*held_out(whole, 5000), test]
    if name == "mr":  # no official split: a tenth each to validate and to test
        rows = [
            (text, label)
            for label in ("neg", "pos")
            for text in data.lines(fetch(f"rt-polarity.{label}"), "cp1252")
        ]
        return [*data.split(rows, 0.1, 0, sentence)]
    path = Path(name)
    if not path.is_file():
        known = ", ".join((*IMAGES, *TEXTS))
        raise InputError(f"--data {path}: neither a file nor one of {known}")
    rows = []
    for (text, label), place in data.table(path, 2, more=False):
        if not text.strip() or not label.strip():
            raise InputError(f"{place}: an empty text or label")
        rows.append((text, label))
    if len(rows) < 10:
        raise InputError(f"--data {path}: {len(rows)} texts, at least 10 needed")
    return [*data.split(rows, 0.1, 0, sentence)]


def held_out(rows: Rows, n: int) -> tuple[Rows, Rows]:
    """All but `n` rows drawn by chance, and these."""
    drawn = random.Random(0).sample(rows, len(rows))
    return drawn[n:], drawn[:n]


def mixed(text: str, seed: int) -> str:
    """The words of a text in an order of chance."""
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


def images(settings: Settings, data_dir: Path | None) -> Corpus:
    """Handwritten digits as sequences of rows, of pixels, or of permuted pixels."""
    name, _, order = settings.data.partition("_")
    if name == "digits":
        pixels, labels, parts = data.digits()
    else:
        read = lambda file: idx(data.fetch("mnist", file, data_dir))
        files = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
        pixels = np.concatenate([read(file) for file in files])
        files = ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
        labels = np.concatenate([read(file) for file in files])
        pixels = pixels.astype(np.float32) / 255
        parts = (range(55_000), range(55_000, 60_000), range(60_000, len(pixels)))
    if order:
        pixels = pixels.reshape(len(pixels), -1, 1)
    if order == "permuted":
        pixels = pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]
    made = [[Example(pixels[i], int(labels[i]), "") for i in part] for part in parts]
    of = lambda part: [pixels[list(part)], labels[list(part)]]
    digests = [fit.digest([*map(of, parts)]), fit.digest(of(parts[2]))]
    return Corpus(made[0], made[1], made[2], [*map(str, range(10))], None, digests)


def idx(path: Path) -> np.ndarray:
    """The array of bytes of an IDX file, plain or packed."""
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = file.read()
        zero, kind, rank = int.from_bytes(content[:2]), content[2], content[3]
        shape = np.frombuffer(content, ">u4", rank, 4)
        if zero or kind != 8:
            raise ValueError
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as e:
        raise InputError(f"{path}: not an IDX file of bytes") from e


def widths(examples: Sequence[Example]) -> tuple[int, ...]:
    """Those to pad to: that of the images, or some for texts."""
    images = not isinstance(examples[0].x, list)
    return (len(examples[0].x),) if images else (12, 20, 32, 52, 84, 140)
