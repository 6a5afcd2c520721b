"""What bounds a layer: its arithmetic, the weights of each step, and its arrays."""

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.cases import GATES, Case
from benchmarks.native.parts import BACKWARD, FORWARD, SUMS
from benchmarks.native.peak import bandwidths
from benchmarks.rows import Row, case_of

BLOCK, FEW = 32, 4  # rows of a block, and of a thread that has rows of its own


class Steps(NamedTuple):
    """How the recurrent matrix is read."""

    array: int  # bytes that a thread reads in a step
    total: float  # GB that all threads read in all steps


def steps(case: Case, threads: int) -> Steps:
    """Each block of rows reads the matrix in every step; with few rows, the threads
    share it.
    """
    matrix = 4 * GATES[case.op] * case.H**2
    few = case.B < FEW * threads
    blocks = 1 if few else max(threads, -(-case.B // BLOCK))
    passes = 2 if case.mode == "gradient" else 1
    array = matrix // threads if few else matrix
    return Steps(array, 1e-9 * passes * blocks * case.T * matrix)


def measured(cases: Iterable[Case], threads: int) -> dict[Case, Row]:
    """For each case GB/s of memory, and of arrays as large as a thread's weights."""
    sizes = {case: steps(case, threads).array for case in cases}
    memory, rates = bandwidths(threads, sorted({*sizes.values()}))
    return {case: {**memory, "weights": rates[n]} for case, n in sizes.items()}


class Bounds(NamedTuple):
    """Milliseconds that a call takes at least, by what bounds it."""

    arithmetic: float
    weights: float
    memory: float


def bounds(row: Row) -> Bounds:
    rates = row["bandwidth"]
    peak = row["peaks"][str(row["cores"])]
    read, written = (row[name] / rates[name[:-3]] for name in ("read_mb", "write_mb"))
    read_weights = steps(case_of(row), row["cores"]).total
    return Bounds(
        1e3 * row["gflop"] / peak, 1e3 * read_weights / rates["weights"], read + written
    )


def gflop_of_parts(case: Case) -> dict[str, float]:
    """Of a gradient, that of each kind of call."""
    N, Z = case.B * case.T, GATES[case.op] * case.H
    of = lambda width: 2e-9 * N * Z * width
    both = case.D + case.H
    return {FORWARD: of(both), BACKWARD: of(case.H), SUMS: of(both + case.D)}
