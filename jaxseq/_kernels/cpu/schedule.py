"""When the values of a program are computed, and when its results are stored."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxseq._kernels.cpu.columns import (
    CONSTANT,
    FIXED,
    ROW,
    STEP,
    Graph,
    Key,
    Piece,
    Value,
)


class Place(NamedTuple):
    key: Key
    first: int  # element of a row that the column begins with
    fresh: bool  # whether it is of the new state


class Multiply(NamedTuple):
    matrix: int  # of those that are called
    adds: bool
    places: tuple[Place, ...]


class Fold(NamedTuple):
    """One number of all elements of a row, as a row of one element."""

    op: int  # of FOLDS
    out: Key
    places: tuple[Place, ...]


class Break(NamedTuple):
    """What ends a run of instructions: a product, a fold, or a number to spread."""

    # makes a product or a fold of the places of the value; None if it is only spread
    action: Callable[[Any], Multiply | Fold] | None
    value: Value
    level: int
    out: Key | None  # the array that the action writes


# Where a value is written to: the key of an array, and whether it is of the new state.
Stored = tuple[Key, Value, bool]


def shared_of(
    graph: Graph, breaks: list[Break], results: list[Stored]
) -> dict[int, dict[Piece, None]]:
    """By level, the values that all rows share and that are read at a later level."""
    found: dict[int, dict[Piece, None]] = {FIXED: {}, STEP: {}}
    seen: set[Piece] = set()

    def visit(piece: Piece, reader: int) -> None:
        op, *args = graph.nodes[piece.node]
        level = graph.levels[piece.node]
        if op in ("at", "constant") or level == CONSTANT:
            return
        if level < reader:
            found[level][piece] = None
        if piece not in seen:
            seen.add(piece)
            for a in args:
                visit(Piece(a, 1 if op == "spread" else piece.length), level)

    for b in breaks:
        for piece in b.value:
            visit(piece, b.level)
    for _, value, _ in results:
        for piece in value:
            visit(piece, ROW)
    return found


# Results and where they go, by how many breaks come before them.
Waiting = dict[int, list[tuple[Piece, Place]]]


def waiting_of(graph: Graph, breaks: list[Break], results: list[Stored]) -> Waiting:
    """The results, each to be stored as soon as what it depends on is known."""
    given = {b.out: i + 1 for i, b in enumerate(breaks)}
    # numbers to be spread are known after the break that computes them
    computed = {
        a.node: i + 1 for i, b in enumerate(breaks) if b.action is None for a in b.value
    }
    after: list[int] = []  # of nodes, which come after their operands
    for node, (op, *args) in enumerate(graph.nodes):
        if op == "at":
            own = given.get(args[0], 0)
        else:
            own = 0 if op == "constant" else max(after[a] for a in args)
        after.append(max(own, computed.get(node, 0)))
    found: Waiting = {}
    for key, value, fresh in results:
        first = 0
        for p in value:
            place = Place(key, first, fresh)
            found.setdefault(after[p.node], []).append((p, place))
            first += p.length
    return found
