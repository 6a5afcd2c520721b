"""Batches of sequences of like length, padded to a few shapes, by Grain."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from experiments.frame.data import Share, part


class Bucket(NamedTuple):
    """Examples whose batches have one shape, for which there is one compiled step."""

    rows: list[int]  # numbers of the examples
    size: int  # of a batch
    # (numbers, B): examples to a batch of B rows, of which those left are empty
    collate: Callable[[Sequence[int], int], Any]
    parted: bool = True  # whether some rows can be read without the others


def bound(n: int, bounds: Sequence[int]) -> int:
    """The width that a sequence of `n` steps is padded to."""
    return next((b for b in bounds if n <= b), -(-n // 128) * 128)


def by_width(lengths: Sequence[int], bounds: Sequence[int]) -> dict[int, list[int]]:
    """The numbers of the sequences that are padded to each width, narrow ones first."""
    found: dict[int, list[int]] = {}
    for i, n in enumerate(lengths):
        found.setdefault(bound(n, bounds), []).append(i)
    return dict(sorted(found.items()))


def pad(
    rows: Sequence[Any], B: int, width: int, fill: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences `(n, ...)` as one array `(B, width, ...)`, and their lengths `(B,)`.

    What only fills the batch has length 0.
    """
    first = np.asarray(rows[0])
    kind = first.dtype if first.dtype.kind == "f" else np.int32
    padded = np.full((B, width, *first.shape[1:]), fill, kind)
    lengths = np.zeros(B, np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
        lengths[i] = len(row)
    return padded, lengths


class Endless:
    """Endless shuffled batches, of which any can be had by its number."""

    def __init__(self, buckets: list[Bucket], seed: int):
        parts, weights = [], []
        for bucket in buckets:
            rows = grain.MapDataset.source(bucket.rows).seed(seed).shuffle().repeat()
            drawn = lambda rows, bucket=bucket: (bucket, list(rows))
            parts.append(rows.batch(bucket.size, batch_fn=drawn))
            weights.append(len(bucket.rows) / bucket.size)
        shares = [weight / sum(weights) for weight in weights]
        self.drawn: Any = grain.MapDataset.mix(parts, shares)

    def __getitem__(self, step: int) -> Any:
        bucket, rows = self.drawn[step]
        return bucket.collate(rows, bucket.size)

    def part(self, step: int, share: Share) -> Any:
        """The rows of a process, which are read alone."""
        bucket, rows = self.drawn[step]
        own = share.of(bucket.size)
        if not bucket.parted or not rows[own]:
            return part(bucket.collate(rows, bucket.size), share)
        return bucket.collate(rows[own], own.stop - own.start)


def once(buckets: list[Bucket]) -> list[tuple[Any, list[int]]]:
    """Every example once, as batches and the numbers of what is in them."""
    return [
        (bucket.collate(rows, bucket.size), rows)
        for bucket in buckets
        for at in range(0, len(bucket.rows), bucket.size)
        if (rows := bucket.rows[at : at + bucket.size])
    ]
