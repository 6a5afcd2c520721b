"""How the work of a step is shared out: halves of the rows, steps of input maps.

XLA runs a small product on one core and a large one on all. Both are decided by rows
and operations, with numbers that were measured on CPUs.
"""

import itertools
import math
from typing import Any

from jax.export import is_symbolic_dim

from jaxseq._engine.slices import WHOLE, Rows
from jaxseq._engine.step import Step
from jaxseq._engine.types import Weights

# bytes of input maps up to which making them all at once is faster
MAPS_BYTES = 14 * 2**20
# rows of x that are projected at a time, at least: fewer make a slow product
PROJECTED_ROWS = 64
# rows of a step from which on its own product is as fast, and its result still in cache
MANY_ROWS = 128
# operations of a step above which XLA runs its products on all cores
MANY_FLOPS = 6.4e7


def in_halves(step: Step, batch: tuple[int, ...]) -> list[Rows]:
    """The rows of the batch, in two halves where that is faster.

    XLA runs a small product on one core. With two independent halves in a step
    another core has work too; a large product takes all cores by itself, and for
    a tiny one handing over costs more than the work.
    """
    if not batch or not on_one_core(step, batch) or batch[0] % 2:
        return [WHOLE]
    half = batch[0] // 2
    return [0, 1] if half == 1 else [slice(0, half), slice(half, batch[0])]


def on_one_core(step: Step, batch: tuple[int, ...]) -> bool:
    """Whether XLA runs each product of a step on one core, and leaves others idle."""
    rows, flops = work_of(step, batch)
    return rows >= 32 and 3e6 <= flops <= MANY_FLOPS


def work_of(step: Step, batch: tuple[int, ...]) -> tuple[int, int]:
    """How many rows a product of a step has at least, and the operations of all."""
    shapes = [(*batch, *a.shape[:-1]) for a in step.z]
    if not shapes or any(is_symbolic_dim(n) for shape in shapes for n in shape):
        return 0, 0
    rows = list(map(math.prod, shapes))
    sizes = [step.sizes[k] for k in step.called]
    if any(map(is_symbolic_dim, sizes)):
        return min(rows), 0
    return min(rows), sum(2 * n * size for n, size in zip(rows, sizes, strict=True))


def block_of(
    T: Any, batch: tuple[int, ...], weights: Weights, z_x: tuple[Any, ...]
) -> int | None:
    """How many steps to make input maps of at a time; None for all at once.

    `z_x` are the maps of one step, without its batch.
    """
    maps = [a for a, w in zip(z_x, weights.w_x, strict=True) if w is not None]
    shapes = [(*batch, *a.shape[:-1]) for a in maps]
    sizes = T, *batch, *itertools.chain(*(a.shape for a in maps))
    if not shapes or any(map(is_symbolic_dim, sizes)):
        return None
    rows = min(map(math.prod, shapes))
    if rows >= MANY_ROWS:
        return 1 if T > 1 else None
    of_step = math.prod(batch) * sum(a.size * a.dtype.itemsize for a in maps)
    if T * of_step <= MAPS_BYTES:
        return None
    size = max(8, PROJECTED_ROWS // max(1, rows))
    return None if size >= T else size
