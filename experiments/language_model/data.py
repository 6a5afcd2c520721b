"""Text as character indices, cut into windows that follow each other."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import datasets
from experiments.frame.data import WHOLE, Data, Share
from experiments.frame.errors import InputError
from experiments.language_model.settings import Settings

TEXTS = {"tinyshakespeare": "input.txt", "warpeace": "warpeace_input.txt"}


class Batch(NamedTuple):
    """A window of each stream, `(batch, window)`."""

    tokens: np.ndarray
    targets: np.ndarray
    fresh: Any  # whether the streams start anew
    mask: np.ndarray | None = None  # which targets count; all if None


@dataclass(frozen=True)
class Windows:
    """Windows of truncated backpropagation: `batch` streams read side by side."""

    tokens: np.ndarray
    batch: int
    window: int
    seed: int

    @property
    def per_epoch(self) -> int:
        return (len(self.tokens) - 1) // (self.batch * self.window)

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, WHOLE)

    def part(self, step: int, share: Share) -> Batch:
        """The streams of a process. Each epoch cuts the text at another offset.

        It depends on the step alone, so a run can go on from any step.
        """
        epoch, i = divmod(step, self.per_epoch)
        length = self.per_epoch * self.window  # of a stream
        room = len(self.tokens) - self.batch * length
        offset = np.random.default_rng((self.seed, epoch)).integers(room)
        streams = np.arange(self.batch)[share.of(self.batch)]
        starts = offset + length * streams + i * self.window
        at = starts[:, None] + np.arange(self.window)
        return Batch(self.tokens[at], self.tokens[at + 1], i == 0)


def every_window(tokens: np.ndarray) -> list[Batch]:
    """All of `tokens`, of which all but the first count once, in 16 streams."""
    streams, window = min(16, len(tokens) - 1), 128
    n = -(-(len(tokens) - 1) // streams)  # steps of a stream, the last padded
    n = -(-n // window) * window if n > window else n
    padded = np.zeros(streams * n + 1, np.int32)
    padded[: len(tokens)] = tokens
    shape = lambda a: a.reshape(streams, n)
    inputs, targets = shape(padded[:-1]), shape(padded[1:])
    mask = shape(np.arange(streams * n) < len(tokens) - 1)
    cut = lambda at: Batch(inputs[at], targets[at], at[1].start == 0, mask[at])
    return [cut(np.s_[:, start : start + window]) for start in range(0, n, window)]


def load(settings: Settings, data_dir: Path | None) -> Data:
    name, text = title(settings), read(settings.data, data_dir)
    vocabulary = "".join(sorted(set(text)))  # the distinct characters
    tokens = encode(text, vocabulary)
    split = round(len(tokens) * (1 - settings.held_out))
    train, held_out = tokens[:split], tokens[split:]
    per_step = settings.batch * settings.window
    if len(train) <= per_step:
        raise InputError(
            f"{name}: {len(train)} characters to train on, at least {per_step + 1} "
            f"needed for one window of {settings.window} in a batch of {settings.batch}"
        )
    if len(held_out) < 2:
        raise InputError(f"{name}: fewer than 2 characters held out")
    return Data(
        train=Windows(train, settings.batch, settings.window, settings.seed),
        held_out=every_window(held_out),
        tests={"test": held_out},
        digests={"all": hashlib.sha256(text.encode()).hexdigest()[:16]},
        facts={"vocabulary": vocabulary},
        about=f"{name}: {len(train):,} characters to train on, {len(held_out):,} held "
        f"out, {len(vocabulary)} distinct.",
        per_step=per_step,
        unit="character",
        fills=False,
    )


def title(settings: Settings) -> str:
    if settings.data is None:
        return "Python documentation (pydoc_data.topics)"
    return Path(settings.data).name


def read(name: str | None, data_dir: Path | None) -> str:
    """A UTF-8 file or one of `TEXTS`; Python's own documentation if None."""
    if name is None:
        return documentation()
    file = TEXTS.get(name)
    path = datasets.fetch(name, file, data_dir) if file else Path(name)
    text = datasets.read(path).replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise InputError(f"--data {path}: the file is empty")
    return text


def documentation() -> str:
    """The help topics of Python, in random order: the tail is like the rest."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    random.Random(0).shuffle(names)
    return "\n\n".join(topics[name] for name in names)


def encode(text: str, vocabulary: str) -> np.ndarray:
    index = {char: i for i, char in enumerate(vocabulary)}
    return np.array([index[char] for char in text], np.int32)


def decode(indices: np.ndarray, vocabulary: str) -> str:
    return "".join(vocabulary[i] for i in indices)
