"""Batches of pairs of sentences, padded to a few shapes."""

from typing import Any, NamedTuple

import numpy as np

from experiments import buckets
from experiments.buckets import Bucket, bound, by_width, pad
from experiments.translation.vocabulary import END, START

# shapes to compile for; a batch has as many sentences as fit its tokens
BOUNDS = (8, 12, 16, 20, 26, 34, 46, 64, 90, 128, 180, 256, 362, 512)
FEWER = BOUNDS[1::2]  # for use: compiling costs more than padding


class Batch(NamedTuple):
    """Padded with END; a sentence that only fills the batch has no length."""

    sources: np.ndarray  # (B, S)
    lengths: np.ndarray  # (B,)
    inputs: np.ndarray  # (B, T), a start token and the target
    targets: np.ndarray  # (B, T), the target and an end token
    target_lengths: np.ndarray  # (B,)


Example = tuple[list[int], list[int]]  # source and target, without END and START


def collate(examples: list[Example], B: int, S: int, T: int) -> Batch:
    sources, lengths = pad([[*s, END] for s, _ in examples], B, S, END)
    inputs, _ = pad([[START, *t] for _, t in examples], B, T, END)
    targets, target_lengths = pad([[*t, END] for _, t in examples], B, T, END)
    return Batch(sources, lengths, inputs, targets, target_lengths)


def grouped(
    examples: list[Example], tokens: int, bounds: tuple[int, ...]
) -> list[Bucket]:
    """Of like length, each batch of as many sentences as fit its tokens."""
    found = []
    widths = by_width([1 + max(map(len, example)) for example in examples], bounds)
    for width, rows in widths.items():
        # where one side is short throughout, as in dates, it is not padded further
        longest = (1 + max(len(examples[i][side]) for i in rows) for side in (0, 1))
        B = max(1, tokens // width)
        S, T = (bound(n, bounds) for n in longest)
        make = lambda rows, shape=(B, S, T): collate(
            [examples[i] for i in rows], *shape
        )
        found.append(Bucket(rows, B, make))
    return found


def training(examples: list[Example], tokens: int, seed: int) -> Any:
    """Endless batches, of which any can be had by its number: `batches[step]`."""
    return buckets.endless(grouped(examples, tokens, BOUNDS), seed)


def once(examples: list[Example], tokens: int) -> list[tuple[Batch, list[int]]]:
    """Every example once, and which they are; the last batches are filled up."""
    return buckets.once(grouped(examples, tokens, FEWER))
