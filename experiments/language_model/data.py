"""Text as character indices, cut into windows that follow each other."""

import hashlib
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import data
from experiments.errors import InputError

TEXTS = {"tinyshakespeare": "input.txt", "warpeace": "warpeace_input.txt"}


class Text(NamedTuple):
    name: str
    vocabulary: str  # the distinct characters, sorted
    train: np.ndarray  # (N,) indices
    held_out: np.ndarray  # (M,) indices, the tail
    digest: str  # of the text, to know it again


def load(path: str | None, held_out: float, data_dir: Path | None = None) -> Text:
    """Reads a UTF-8 file or one of `TEXTS`; Python's own documentation if None."""
    text = documentation() if path is None else read(path, data_dir)
    vocabulary = "".join(sorted(set(text)))
    indices = encode(text, vocabulary)
    split = round(len(indices) * (1 - held_out))
    return Text(
        "Python documentation (pydoc_data.topics)" if path is None else Path(path).name,
        vocabulary,
        indices[:split],
        indices[split:],
        hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def documentation() -> str:
    """The help topics of Python, in an order of chance: the tail is like the rest."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    random.Random(0).shuffle(names)
    return "\n\n".join(topics[name] for name in names)


def read(name: str, data_dir: Path | None) -> str:
    path = data.fetch(name, TEXTS[name], data_dir) if name in TEXTS else Path(name)
    text = data.read(path).replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise InputError(f"--data {path}: the file is empty")
    return text


def encode(text: str, vocabulary: str) -> np.ndarray:
    index = {char: i for i, char in enumerate(vocabulary)}
    return np.array([index[char] for char in text], np.int32)


def decode(indices: np.ndarray, vocabulary: str) -> str:
    return "".join(vocabulary[i] for i in indices)


class Windows(NamedTuple):
    """Windows of truncated backpropagation: `batch` streams read side by side."""

    tokens: np.ndarray
    batch: int
    window: int
    seed: int

    @property
    def per_epoch(self) -> int:
        return (len(self.tokens) - 1) // (self.batch * self.window)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Inputs and targets `(batch, window)`, and whether the streams start anew.

        Each epoch cuts the text at another offset. It depends on the step alone,
        so a run can go on from any step.
        """
        epoch, i = divmod(step, self.per_epoch)
        length = self.per_epoch * self.window  # of a stream
        room = len(self.tokens) - self.batch * length
        offset = np.random.default_rng((self.seed, epoch)).integers(room)
        starts = offset + length * np.arange(self.batch) + i * self.window
        at = starts[:, None] + np.arange(self.window)
        return self.tokens[at], self.tokens[at + 1], i == 0


def check_lengths(text: Text, batch: int, window: int) -> None:
    needed = batch * window + 1
    if len(text.train) < needed:
        raise InputError(
            f"{text.name}: {len(text.train)} characters to train on, at least "
            f"{needed} needed for one window of {window} in a batch of {batch}"
        )
    if len(text.held_out) < 2:
        raise InputError(f"{text.name}: fewer than 2 characters held out")
