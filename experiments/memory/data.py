"""Two problems in which what is needed comes long before the end.

Adding (Hochreiter and Schmidhuber, 1997, as Le and others, 2015, put it): each step
gives a number and a mark, and the answer after the last step is the sum of the two
numbers that are marked. Copy (Arjovsky and others, 2016): ten symbols have to be
written again after a time in which nothing comes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.frame.data import WHOLE, Data, Share, digest
from experiments.memory.settings import Settings

# numbers of the first entry of the generator, which no --seed takes
HELD_OUT, TEST = 2**31, 2**31 + 1
HELD_OUT_BATCHES, TEST_BATCHES = 4, 10
ROWS = 250  # of a batch that is not to train on
SYMBOLS, REMEMBERED = 8, 10
BLANK, GO = SYMBOLS, SYMBOLS + 1
ALL = slice(None)  # rows of a batch


class Batch(NamedTuple):
    x: np.ndarray  # inputs (B, T, D)
    y: np.ndarray  # sums (B,), or symbols (B, T)


def adding(rng: np.random.Generator, B: int, T: int, own: slice = ALL) -> Batch:
    """Numbers in [0, 1] with two marks, one in each half, and the sums."""
    half, numbers = T // 2, rng.random((B, T))[own]
    first, second = rng.integers(half, size=B)[own], rng.integers(half, T, size=B)[own]
    x, rows = np.zeros((*numbers.shape, 2), np.float32), np.arange(len(numbers))
    x[..., 0] = numbers
    x[rows, first, 1] = x[rows, second, 1] = 1
    return Batch(x, x[rows, first, 0] + x[rows, second, 0])


def copy(rng: np.random.Generator, B: int, T: int, own: slice = ALL) -> Batch:
    """Ten symbols, blanks, a sign `T` steps after them, ten blanks: one-hot.

    The answer is blank up to the sign, and with the step after it the symbols.
    """
    symbols = rng.integers(SYMBOLS, size=(B, REMEMBERED))[own]
    given, y = np.full((2, len(symbols), T + 2 * REMEMBERED), BLANK, np.int32)
    given[:, :REMEMBERED] = y[:, -REMEMBERED:] = symbols
    given[:, -REMEMBERED - 1] = GO
    return Batch(np.eye(SYMBOLS + 2, dtype=np.float32)[given], y)


DRAWS = {"adding": adding, "copy": copy}
WIDTHS = {"adding": (2, 1), "copy": (SYMBOLS + 2, SYMBOLS + 1)}  # of input, answer
UNITS = {"adding": "squared error", "copy": "nats per step"}


def baseline(task: str, T: int) -> float:
    """The loss of the best answer without memory.

    That to adding is 1, whose squared error is the variance of a sum of two uniform
    numbers, 1/6; that to copy is blank, then each symbol alike.
    """
    if task == "adding":
        return 1 / 6
    return REMEMBERED * math.log(SYMBOLS) / (T + 2 * REMEMBERED)


def solved(task: str, T: int) -> float:
    """The loss below which a problem counts as solved."""
    return 0.01 if task == "adding" else 0.1 * baseline(task, T)


@dataclass(frozen=True)
class Batches:
    """Endless batches, of which any can be had by its number."""

    task: str
    length: int
    size: int
    seed: int

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, WHOLE)

    def part(self, step: int, share: Share) -> Batch:
        """The rows of a process: what is drawn is that of all, and cheap."""
        rng = np.random.default_rng((self.seed, step))
        own = share.of(self.size)
        return DRAWS[self.task](rng, self.size, self.length, own)


def title(settings: Settings) -> str:
    steps = "steps" if settings.task == "adding" else "steps between"
    return f"{settings.task}, {settings.length} {steps}"


def load(settings: Settings, data_dir: Path | None = None) -> Data:
    task, T = settings.task, settings.length
    held_out, test = (Batches(task, T, ROWS, part) for part in (HELD_OUT, TEST))
    known = digest([task, T])
    return Data(
        train=Batches(task, T, settings.batch, settings.seed),
        held_out=[held_out[i] for i in range(HELD_OUT_BATCHES)],
        tests={"test": test},
        digests={"all": known, "test": known},
        about=f"{title(settings)}: {ROWS * TEST_BATCHES:,} sequences to test.",
        per_step=settings.batch,
        unit="sequence",
        fills=False,
    )
