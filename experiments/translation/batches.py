"""Batches of sentences of like length, padded to a few shapes, by Grain."""

from typing import Any, NamedTuple

import grain
import numpy as np

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


def bound(n: int, bounds: tuple[int, ...]) -> int:
    return next((b for b in bounds if n <= b), -(-n // 128) * 128)


def pad(rows: list[list[int]], B: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    padded = np.full((B, width), END, np.int32)
    lengths = np.zeros(B, np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
        lengths[i] = len(row)
    return padded, lengths


def collate(examples: list[Example], B: int, S: int, T: int) -> Batch:
    sources, lengths = pad([[*s, END] for s, _ in examples], B, S)
    inputs, _ = pad([[START, *t] for _, t in examples], B, T)
    targets, target_lengths = pad([[*t, END] for _, t in examples], B, T)
    return Batch(sources, lengths, inputs, targets, target_lengths)


def grouped(
    examples: list[Example], tokens: int, bounds: tuple[int, ...]
) -> list[tuple[list[tuple[int, Example]], int, int, int]]:
    """Numbered examples by length, with the shape (B, S, T) of their batches."""
    groups: dict[int, list[tuple[int, Example]]] = {}
    for i, example in enumerate(examples):
        width = bound(1 + max(map(len, example)), bounds)
        groups.setdefault(width, []).append((i, example))
    found = []
    for width, group in sorted(groups.items()):
        # where one side is short throughout, as in dates, it is not padded further
        longest = (1 + max(len(e[side]) for _, e in group) for side in (0, 1))
        S, T = (bound(n, bounds) for n in longest)
        found.append((group, max(1, tokens // width), S, T))
    return found


def training(examples: list[Example], tokens: int, seed: int) -> Any:
    """Endless batches, of which any can be had by its number: `batches[step]`."""
    parts, shares = [], []
    for group, B, S, T in grouped(examples, tokens, BOUNDS):
        part = (
            grain.MapDataset.source([e for _, e in group]).seed(seed).shuffle().repeat()
        )
        collated = lambda rows, B=B, S=S, T=T: collate(rows, B, S, T)
        parts.append(part.batch(B, batch_fn=collated))
        shares.append(len(group) / B)
    return grain.MapDataset.mix(parts, [share / sum(shares) for share in shares])


def once(examples: list[Example], tokens: int) -> list[tuple[Batch, list[int]]]:
    """Every example once, and which they are; the last batches are filled up."""
    found = []
    for group, B, S, T in grouped(examples, tokens, FEWER):
        for at in range(0, len(group), B):
            places, rows = zip(*group[at : at + B], strict=True)
            found.append((collate([*rows], B, S, T), [*places]))
    return found
