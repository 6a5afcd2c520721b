"""Data sets as sequences with a label: images read in pieces, texts as tokens."""

import gzip
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import datasets, tables
from experiments.classification.settings import IMAGES, OF_TABLES, TEXTS, Settings
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


Rows = list[tuple[str, str]]  # texts and labels
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
        train=buckets.endless(bucketed(train, settings.batch), settings.seed),
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


def texts(settings: Settings, data_dir: Path | None) -> list[Rows]:
    """Training, validation and test texts with their labels."""
    name = settings.data
    fetch = lambda file: datasets.fetch(
        name[:3] if "sst" in name else name, file, data_dir
    )
    sentence = lambda row: row[0]
    if name in ("sst2", "sst5"):
        kind = "binary" if name == "sst2" else "fine"
        files = (f"stsa.{kind}.{part}" for part in ("train", "dev", "test"))
        return [tables.labelled(fetch(file)) for file in files]
    if name == "trec":
        whole, test = (
            tables.labelled(fetch(f"TREC.{part}.all"), "cp1252")
            for part in ("train", "test")
        )
        return [*held_out(whole, 500), test]
    if name == "nsmc":
        whole, test = (
            [
                (text, label)
                for (_, text, label), _ in tables.table(
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
            for text in datasets.lines(fetch(f"rt-polarity.{label}"), "cp1252")
        ]
        return [*datasets.split(rows, 0.1, 0, sentence)]
    path = Path(name)
    if not path.is_file():
        known = ", ".join((*IMAGES, *TEXTS))
        raise InputError(f"--data {path}: neither a file nor one of {known}")
    rows = own_texts(path, settings)
    return [*datasets.split(rows, 0.1, 0, sentence)]


def own_texts(path: Path, settings: Settings) -> Rows:
    """The texts and labels of a table of the user's."""
    how: Any = {name: getattr(settings, name) for name in OF_TABLES}
    found, named = tables.own(path, ("text", "label"), **how)
    for text, label, place in found:
        if not text.strip() or not label.strip():
            raise InputError(f"{place}: an empty text or label")
    rows = [(text, label.strip()) for text, label, _ in found]
    if len(rows) < 10:
        raise InputError(f"--data {path}: {len(rows)} texts, at least 10 needed")
    texts, labels = (Counter(row[side] for row in rows) for side in (0, 1))
    if not named and len(labels) > len(texts):
        raise InputError(
            f"{path}: {len(texts)} different texts in column 1 and {len(labels)} "
            "different labels in column 2: if the label stands first, --columns "
            "label,text; if not, --columns text,label"
        )
    once = [label for label, n in labels.items() if n == 1]
    if settings.header is None and once == [rows[0][1]]:
        raise InputError(
            f"{found[0].place}: no other row has the label {tables.short(once[0])}: if "
            "this is a header, --header; if not, --no-header"
        )
    return rows


def held_out(rows: Rows, n: int) -> tuple[Rows, Rows]:
    """All but `n` rows drawn by chance, and these."""
    drawn = random.Random(0).sample(rows, len(rows))
    return drawn[n:], drawn[:n]


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
    if name == "digits":
        pixels, labels, parts = datasets.digits()
    else:
        read = lambda file: idx(datasets.fetch("mnist", file, data_dir))
        files = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
        pixels = np.concatenate([read(file) for file in files])
        files = ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
        labels = np.concatenate([read(file) for file in files])
        if not 60_000 < len(pixels) == len(labels):
            n = f"{len(pixels):,} images and {len(labels):,} labels"
            raise InputError(f"mnist: {n}, 70,000 of each expected")
        pixels = pixels.astype(np.float32) / 255
        parts = (range(55_000), range(55_000, 60_000), range(60_000, len(pixels)))
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


def bucketed(examples: list[Example], size: int) -> list[Bucket]:
    padded = widths(examples)

    def bucket(width: int, rows: list[int]) -> Bucket:
        def collate(rows: Any) -> Batch:
            x, lengths = buckets.pad([examples[i].x for i in rows], size, width)
            labels = [examples[i].label for i in rows]
            labels += [0] * (size - len(rows))
            return Batch(x, lengths, np.array(labels, np.int32))

        return Bucket(rows, size, collate)

    by_width = buckets.by_width([len(e.x) for e in examples], padded)
    return [bucket(width, rows) for width, rows in by_width.items()]
