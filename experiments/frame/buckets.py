"""Batches of sequences of like length, padded to a few shapes, by Grain."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np


class Bucket(NamedTuple):
    """Examples whose batches have one shape, for which there is one compiled step."""

    rows: list[int]  # numbers of the examples
    size: int  # of a batch
    collate: Callable[[Sequence[int]], Any]  # at most `size` numbers to a batch


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


def endless(buckets: list[Bucket], seed: int) -> Any:
    """Endless shuffled batches, of which any can be had by its number."""
    parts, shares = [], []
    for rows, size, collate in buckets:
        part = grain.MapDataset.source(rows).seed(seed).shuffle().repeat()
        parts.append(part.batch(size, batch_fn=collate))
        shares.append(len(rows) / size)
    return grain.MapDataset.mix(parts, [share / sum(shares) for share in shares])


def once(buckets: list[Bucket]) -> list[tuple[Any, list[int]]]:
    """Every example once, as batches and the numbers of what is in them."""
    return [
        (bucket.collate(rows), rows)
        for bucket in buckets
        for at in range(0, len(bucket.rows), bucket.size)
        if (rows := bucket.rows[at : at + bucket.size])
    ]
