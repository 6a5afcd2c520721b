"""How many rows and steps of a cell a TPU's memory beside its matrix units holds."""

from math import ceil
from typing import Any, NamedTuple

import jax
from jax.experimental.pallas import tpu as pltpu

from jaxseq._engine.types import Devices
from jaxseq._kernels.call import Operands

LANES = 128
ROWS = 16  # in a tile of 16-bit values, and in two of float32
MOST_ROWS = 128  # the matrix unit is busy with these
MOST_STEPS = 32
BLOCKS = 16 << 20  # bytes; more of them only come in later
SMALLEST = 16 << 20  # bytes of VMEM, on v4 and before


class Chip(NamedTuple):
    """What the tiles depend on."""

    vmem: int  # bytes of a core
    cores: int  # that share a kernel


class Bytes(NamedTuple):
    """What a kernel holds in VMEM."""

    fixed: int
    row: int  # for every row of a batch tile
    step: int  # for every row and step of a block

    def total(self, rows: int, steps: int) -> int:
        return self.fixed + rows * (self.row + steps * self.step)


def chip(devices: Devices) -> Chip:
    """The TPU of their mesh, or by default; the smallest if there is none."""
    try:
        with jax.sharding.use_abstract_mesh(devices.mesh):
            info = pltpu.get_tpu_info()
    except ValueError:  # that is not a TPU
        return Chip(SMALLEST, 1)
    return Chip(info.vmem_capacity_bytes, info.num_cores)


def tiles(B: int, T: int, size: Bytes, chip: Chip) -> tuple[int, int] | None:
    """Rows of a batch tile and steps of a block of time; None if none fits.

    As few batch tiles as there are cores, where that leaves room for 8 steps: each
    tile takes all the weights through the matrix unit once a step.
    """
    # some is for the compiler
    room = chip.vmem - chip.vmem // 8 - size.fixed
    for n in range(chip.cores, ceil(B / ROWS) + chip.cores):
        rows = ROWS * ceil(B / n / ROWS)
        most = min(T, MOST_STEPS, max(8, BLOCKS // (rows * size.step)))
        steps = min(most, (room // rows - size.row) // size.step)
        enough = rows <= MOST_ROWS and steps >= min(T, 8)
        if steps >= 1 and (enough or rows == ROWS):
            return rows, ceil(T / ceil(T / steps))
    return None


def tile_of(operands: Operands, rows: int) -> Operands:
    """Shapes of what one step is given, for so many rows."""
    row = lambda a: jax.ShapeDtypeStruct((rows, a.shape[-1]), a.dtype)
    matrix = lambda a: jax.ShapeDtypeStruct(a.shape[-2:], a.dtype)
    weights = jax.tree.map(matrix, operands.weights)
    return Operands(weights, *jax.tree.map(row, tuple(operands[1:])))


def count(operands: Operands, y: Any) -> Bytes:
    """VMEM of a scan, from shapes with the sizes of matrices and rows at their end.

    What streams is there twice: one block is in use while the other is on its way.
    As much as one step of it is counted for values in between.
    """
    weights, rows, carry, x = operands
    wide = lambda a: LANES * ceil(a.shape[-1] / LANES) * a.dtype.itemsize
    width = lambda tree: sum(map(wide, jax.tree.leaves(tree)))
    matrix = lambda a: ROWS * ceil(a.shape[-2] / ROWS) * wide(a)
    fixed = sum(map(matrix, jax.tree.leaves(weights)))
    streams = 2 * width((x, y))
    return Bytes(fixed, 5 * width(carry) + 2 * width(rows) + streams, streams)
