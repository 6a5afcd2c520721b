"""Sentences as numbers, cut, and in batches."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.frame import buckets
from experiments.frame.buckets import Bucket
from experiments.frame.data import Data, Same, digest
from experiments.frame.errors import InputError
from experiments.tagging.corpus import Sentence, sentences
from experiments.tagging.entities import SCHEMES, scheme
from experiments.tagging.settings import Settings
from experiments.tagging.vocabulary import Encoded, Letters, Vocabulary, encode, known


class Corpus(NamedTuple):
    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]
    vocabulary: Vocabulary

    @property
    def truth(self) -> list[list[str]]:
        """The tags of the test."""
        return [sentence.tags for sentence in self.test]


def load(settings: Settings, data_dir: Path | None) -> Data:
    """The three parts, and the vocabulary of the first."""
    parts = sentences(settings, data_dir)
    tags = sorted({tag for part in parts for s in part for tag in s.tags})
    if len(tags) < 2:
        raise InputError(f"--data {settings.data}: all words have the tag {tags}")
    vocabulary = Vocabulary(*known(parts[0], settings), tags)
    joined = [[["\t".join(s.words), " ".join(s.tags)] for s in p] for p in parts]
    rows, letters = encode(parts[0], vocabulary, settings)
    train = bucketed(cut(rows, settings), letters, settings)
    words = sum(len(row.words) for row in rows)
    rows, letters = encode(parts[1], vocabulary, settings)
    held_out = buckets.once(bucketed(cut(rows, settings), letters, settings))
    sizes = "{:,} texts to train on, {:,} held out, {:,} to test".format(
        *map(len, parts)
    )
    entities = scheme(tags)
    told = (
        f"They tell of entities ({entities}): F1 is over these."
        if entities
        else f"They tell of no entities ({', '.join(SCHEMES)}): accuracy alone, no F1."
    )
    return Data(
        train=buckets.Endless(train, settings.seed),
        held_out=[batch for batch, _ in held_out],
        tests={"test": Corpus(parts[0], parts[1], parts[2], vocabulary)},
        digests={"all": digest(joined), "test": digest(joined[2])},
        facts={"vocabulary": vocabulary._asdict()},
        about=f"{title(settings)}: {sizes}; {len(vocabulary.words):,} "
        f"words, {len(vocabulary.letters):,} letters, {len(tags)} tags. {told}",
        per_step=round(words / sum(len(own.rows) / own.size for own in train)),
        unit="character" if settings.data == "python" else "word",
    )


def title(settings: Settings) -> str:
    return Path(settings.data).name


def windows(n: int, width: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Where a sequence of `n` is read and kept: (start, end, low, high).

    What is kept of a window is `margin` away from its ends, if the sequence goes on
    there, so that it is known what stands around it.
    """
    if n <= width:
        return [(0, n, 0, n)]
    starts = [*range(0, n - width, width - 2 * margin), n - width]
    lows = [0, *(start + margin for start in starts[1:])]
    highs = [*lows[1:], n]
    return [
        (start, start + width, low, high)
        for start, low, high in zip(starts, lows, highs, strict=True)
    ]


def cut(rows: Iterable[Encoded], settings: Settings) -> list[Encoded]:
    """Sequences of at most `longest`, as they are trained on."""
    part: Callable[[Any, int], Any] = lambda row, at: Encoded(
        *(x[at : at + settings.longest] for x in row)
    )
    return [
        part(row, at)
        for row in rows
        for at in range(0, len(row.words), settings.longest)
    ]


def widths(settings: Settings) -> tuple[int, ...]:
    """Those that sequences are padded to."""
    short = () if settings.data == "python" else (16, 40)
    return (*(w for w in short if w < settings.longest), settings.longest)


class Batch(NamedTuple):
    words: np.ndarray  # (B, T)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    tags: np.ndarray  # (B, T)
    forms: np.ndarray | None  # (B, T) rows of the letters
    # of the distinct words of the batch, (N, L, P) and (N,)
    letters: Same | None
    letter_lengths: Same | None


def bucketed(
    rows: Sequence[Encoded], letters: Letters, settings: Settings
) -> list[Bucket]:
    """Batches of about `settings.batch` words, of sentences of like length."""

    def bucket(width: int, own: list[int]) -> Bucket:
        size = max(1, settings.batch // width)
        most = most_distinct([rows[i].forms for i in own], size)

        def collate(chosen: Any, B: int) -> Batch:
            fields = zip(*(rows[i] for i in chosen), strict=True)
            padded = [buckets.pad(field, B, width) for field in fields]
            (words, lengths), (forms, _), (tags, _) = padded
            spelt = (None, None, None)
            if settings.letters:
                spelt = distinct(forms, letters, most)
            return Batch(words, lengths, tags, *spelt)

        return Bucket(own, size, collate, parted=not settings.letters)

    lengths = [len(row.words) for row in rows]
    by_width = buckets.by_width(lengths, widths(settings))
    return [bucket(width, own) for width, own in by_width.items()]


def most_distinct(forms: list[np.ndarray], size: int) -> int:
    """Distinct words that a batch is hardly ever above, from some batches by chance."""
    chance = random.Random(0)
    draw = lambda: chance.sample(forms, min(size, len(forms)))
    most = max(len(np.unique(np.concatenate(draw()))) for _ in range(50))
    return 1 + most + most // 8  # and one for what fills the batch


def distinct(
    forms: np.ndarray, letters: Letters, most: int
) -> tuple[np.ndarray, Same, Same]:
    """Rows of the letters of the distinct words, and these, filled up to `most`."""
    found, rows = np.unique(forms, return_inverse=True)
    # one shape to compile for, and seldom a second one
    own = np.zeros(most if len(found) <= most else forms.size + 1, np.int32)
    own[: len(found)] = found
    rows = rows.reshape(forms.shape).astype(np.int32)
    return rows, Same(letters.parts[own]), Same(letters.lengths[own])
