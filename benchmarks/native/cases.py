"""What is measured: parts, shapes and modes, in the form of the other rows."""

from collections.abc import Iterable

from benchmarks.cases import BOTH, MORE_SHAPES, OPS, SHAPES, Case, Shape

# of each part what it measures
PARTS: dict[str, tuple[str, ...]] = {
    "layers": OPS,
    "cells": ("peephole LSTM", "projected LSTM", "reset-before GRU"),
    "bodies": ("nnx OptimizedLSTMCell", "linen GRUCell", "Haiku LSTM"),
    "resets": ("gru",),
    "step": OPS,
}
# of what is no built-in cell, the one that has as many products
LIKE = {
    "peephole LSTM": "lstm",
    "reset-before GRU": "gru",
    "nnx OptimizedLSTMCell": "lstm",
    "linen GRUCell": "gru",
    "Haiku LSTM": "lstm",
}
EVERY: tuple[Shape, ...] = (
    *SHAPES,
    *MORE_SHAPES,
    (48, 75, 300, 300),
    (8, 200, 96, 192),
    (1, 512, 128, 512),
    (4, 1000, 64, 64),
    (128, 64, 128, 128),
    (256, 128, 256, 256),
    (1024, 64, 128, 128),
    (2, 300, 80, 384),
    (512, 20, 40, 96),
)
ROLLOUTS: tuple[Shape, ...] = ((256, 128, 256, 256), (1024, 64, 128, 128))
STEP: Shape = (1, 1, 128, 128)
NATIVE, AGAIN, CHUNKS = "native", "native again", "chunks"


def cases(
    parts: Iterable[str] = PARTS,
    shapes: Iterable[Shape] | None = None,
    modes: Iterable[str] = BOTH,
) -> list[tuple[str, Case]]:
    """Each with its part; `shapes` take the place of a part's own."""
    found: list[tuple[str, Case]] = []
    for part in parts:
        own: Iterable[Shape] = EVERY if shapes is None else shapes
        if shapes is None and part in ("resets", "step"):
            own = ROLLOUTS if part == "resets" else (STEP,)
        for B, T, D, H in own:
            for op in PARTS[part]:
                for mode in ("step",) if part == "step" else modes:
                    case = Case(op, mode, B, T, D, H, resets=part == "resets")
                    found.append((part, case))
    return found
