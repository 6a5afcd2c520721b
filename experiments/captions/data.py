"""The images and their names, in batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import datasets
from experiments.captions import names
from experiments.captions.names import END, LANGUAGES, LONGEST, START, TABLE
from experiments.captions.settings import Settings
from experiments.frame import buckets
from experiments.frame.buckets import Bucket
from experiments.frame.data import Data, digest


class Part(NamedTuple):
    images: np.ndarray  # (N, 8, 8), from 0 to 1
    digits: np.ndarray  # (N,)


class Batch(NamedTuple):
    images: np.ndarray  # (B, 8, 8)
    inputs: np.ndarray  # (B, L): the language, then the letters
    targets: np.ndarray  # (B, L): the letters, then the end
    lengths: np.ndarray  # (B,), 0 for what only fills the batch


def parts() -> tuple[Part, Part, Part]:
    """Training, validation and test images, no image in two parts."""
    images, digits, ends = datasets.digits()
    train, validation, test = (Part(images[rows], digits[rows]) for rows in ends)
    return train, validation, test


def batch(part: Part, rows: Sequence[int], size: int) -> Batch:
    """Rows are pairs of an image and a language: image times languages + language."""
    pairs = [divmod(row, len(LANGUAGES)) for row in rows]
    spelt = [names.tokens(language, part.digits[i]) for i, language in pairs]
    targets, lengths = buckets.pad(spelt, size, LONGEST, END)
    images, _ = buckets.pad([part.images[i] for i, _ in pairs], size, 8)
    first = np.full(size, START)
    first[: len(pairs)] += [language for _, language in pairs]
    inputs = np.concatenate([first[:, None], targets[:, :-1]], 1).astype(np.int32)
    return Batch(images, inputs, targets, lengths)


def bucket(part: Part, size: int) -> Bucket:
    rows = list(range(len(part.images) * len(LANGUAGES)))
    return Bucket(rows, size, lambda rows, B: batch(part, rows, B))


def load(settings: Settings, data_dir: Path | None = None) -> Data:
    train, validation, test = parts()
    known: Any = lambda part: digest([part.images, part.digits, TABLE])
    return Data(
        train=buckets.Endless([bucket(train, settings.batch)], settings.seed),
        held_out=[b for b, _ in buckets.once([bucket(validation, settings.batch)])],
        tests={"test": test},
        digests={"all": known(train), "test": known(test)},
        about=f"{len(train.images):,} images to train on, {len(test.images):,} to "
        f"test; {len(LANGUAGES)} languages.",
        per_step=settings.batch,
        unit="name",
    )
