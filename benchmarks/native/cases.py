"""What is measured: parts, shapes and modes, in the form of the other rows."""

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.cases import BOTH, MORE_SHAPES, OPS, SHAPES, Case, Shape

# of each part what it measures
PARTS: dict[str, tuple[str, ...]] = {
    "layers": OPS,
    "resets": ("gru",),
    "step": OPS,
    "cells": ("peephole LSTM", "projected LSTM", "reset-before GRU"),
    "bodies": ("nnx OptimizedLSTMCell", "linen GRUCell", "Haiku LSTM"),
    "half": ("lstm", "gru"),
    "ensemble": ("lstm", "gru"),
    "products": OPS,
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
# where a part has other shapes than the layers
OWN: dict[str, tuple[Shape, ...]] = {
    "resets": ((256, 128, 256, 256), (1024, 64, 128, 128)),
    "step": ((1, 1, 128, 128),),
    "half": ((128, 64, 128, 128), (32, 128, 128, 256), (16, 128, 256, 512)),
    "ensemble": ((8, 50, 16, 32), (32, 50, 16, 128), (16, 128, 64, 256)),
}
# of parts that are to be quick: rounds, and compilations, of which the median counts
MOST_ROUNDS = {"products": 4, "cells": 4, "bodies": 4}
COMPILES, FEWER_COMPILES = 3, {"cells": 1, "bodies": 1}
HALF = ("bfloat16", "float16")
MEMBERS = 8  # of an ensemble
NATIVE, AGAIN, CHUNKS = "native", "native again", "chunks"
FLOAT32, STEP = "float32", "jaxseq step"
PRODUCTS = "products"  # a contender, and the part that measures it


class Asked(NamedTuple):
    part: str
    case: Case

    def __str__(self) -> str:
        return f"{self.part}: {self.case}"


def cases(
    parts: Iterable[str] = PARTS,
    shapes: Iterable[Shape] | None = None,
    modes: Iterable[str] = BOTH,
) -> list[Asked]:
    """Each with its part; `shapes` take the place of a part's own."""
    found = []
    for part in parts:
        dtypes = HALF if part == "half" else ("float32",)
        for shape in OWN.get(part, EVERY) if shapes is None else shapes:
            kinds = [(op, dtype) for op in PARTS[part] for dtype in dtypes]
            for op, dtype in kinds:
                for mode in ("step",) if part == "step" else modes:
                    case = Case(op, mode, *shape, dtype, resets=part == "resets")
                    found.append(Asked(part, case))
    return found
