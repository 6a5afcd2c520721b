"""What a program does: runs of instructions between products and sums over rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxseq._kernels.cpu.code import Run, run_of
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

SHARED = "shared", 0  # what is the same in all rows, and is computed once for them


class Place(NamedTuple):
    key: Key
    first: int  # element of a row that the column begins with
    fresh: bool  # whether it is of the new state


class Multiply(NamedTuple):
    matrix: int  # of those that are called
    adds: bool
    places: tuple[Place, ...]


class Fold(NamedTuple):
    """One number of all elements of a row, in every element of another."""

    op: int  # of FOLDS
    out: Key
    places: tuple[Place, ...]


class Runs:
    """What is computed before each product and fold, and after the last."""

    def __init__(self, graph: Graph, first: int):
        self.graph = graph
        self.first = first  # number of what is kept
        self.wanted: dict[int, list[tuple[int, Place]]] = {}  # by length
        self.done: list[Any] = []  # dicts of runs, and products
        self.owner: dict[Piece, Any] = {}  # in which run a node was computed
        self.places: dict[Piece, Place] = {}  # of nodes that are kept
        self.kept: list[tuple[Place, int]] = []
        self.between: dict[Piece, Place] = {}
        self.homes: dict[Piece, Place] = {}  # of results that may be kept where they go
        self.level = ROW  # of what is computed now
        self.shared: list[int] = []  # the columns of what all rows share

    def place(self, piece: Piece) -> Place:
        place = self.homes.get(piece)
        if self.level < ROW:
            place = Place(SHARED, sum(self.shared), False)
            self.shared.append(piece.length)
        elif place is None:
            place = Place(("between", self.first + len(self.kept)), 0, False)
            self.kept.append((place, piece.length))
        self.places[piece] = place
        return place

    def places_of(self, value: Value) -> tuple[Place, ...]:
        """Where a value stands, for a product."""
        places = []
        for p in value:
            op, *args = self.graph.nodes[p.node]
            if op == "at":
                places.append(Place(args[0], args[1], False))
                continue
            if p not in self.between:
                self.between[p] = self.keep(p)
            places.append(self.between[p])
        return tuple(places)

    def keep(self, piece: Piece) -> Place:
        """Has a node computed here, for a product or a fold, and kept."""
        if piece in self.places:
            return self.places[piece]
        if piece in self.owner:
            return self.cross(piece)
        place = self.place(piece)
        self.wanted.setdefault(piece.length, []).append((piece.node, place))
        return place

    def cross(self, piece: Piece) -> Place:
        """Has what an earlier run computed kept there."""
        place = self.place(piece)
        self.owner[piece].append((piece.node, place))
        return place

    def store_all(self, stored: "Waiting", breaks: int) -> None:
        """Has results stored that need no more than so many breaks before them."""
        for i in [i for i in stored if i <= breaks]:
            for piece, place in stored.pop(i):
                if self.places.get(piece) != place:
                    self.wanted.setdefault(piece.length, []).append((piece.node, place))

    def end(self, action: Multiply | Fold | None) -> None:
        """Ends what comes before a product or a fold."""
        for length, all_roots in list(self.wanted.items()):
            for roots, computed in self.apart(all_roots, length):
                for node, place in computed.items():
                    if place is None:
                        self.owner.setdefault(Piece(node, length), roots)
                self.done.append((length, roots, computed))
        self.wanted = {}
        if action is not None:
            self.done.append(action)

    def apart(self, all_roots: Any, length: int) -> list[tuple[list[Any], Any]]:
        """Runs of what has nothing in common, each with fewer registers."""
        groups: list[tuple[list[Any], dict[int, Place | None]]] = []
        for root in all_roots:
            roots, computed = [root], {}
            self.visit([root[0]], length, computed)
            own = {n for n, place in computed.items() if place is None} | {root[0]}
            own = {n for n in own if not self.is_free(n)}
            rest = []
            for old_roots, old in groups:
                if own & (old.keys() | {n for n, _ in old_roots}):
                    roots, computed = old_roots + roots, old | computed
                else:
                    rest.append((old_roots, old))
            groups = [*rest, (roots, computed)]
        return groups

    def visit(self, nodes: Any, length: int, computed: dict[int, Any]) -> None:
        """Which nodes are computed, and where others are that were kept."""
        for node in nodes:
            op, *args = self.graph.nodes[node]
            if op in ("at", "constant") or node in computed:
                continue
            piece = Piece(node, length)
            own = any(node == n for n, _ in self.wanted.get(length, ()))
            own &= self.graph.levels[node] == self.level
            own |= self.is_free(node)
            if piece in self.owner and not own:
                computed[node] = self.places.get(piece) or self.cross(piece)
                continue
            if piece in self.places and not own:
                computed[node] = self.places[piece]
                continue
            computed[node] = None
            if op != "spread":
                self.visit(args, length, computed)
            elif self.graph.nodes[args[0]][0] != "at":
                (computed[args[0]],) = self.places_of([Piece(args[0], 1)])

    def is_free(self, node: int) -> bool:
        """Whether it is computed again wherever it is read."""
        level = self.graph.levels[node]
        is_spread = self.graph.nodes[node][0] == "spread"
        return level == CONSTANT or (is_spread and level == ROW)

    def columns(self) -> dict[Key, list[int]]:
        """Of the arrays that this has made."""
        found = {place.key: [length] for place, length in self.kept}
        return found | ({SHARED: self.shared} if self.shared else {})

    def actions(self) -> list[Run | Multiply | Fold]:
        made: list[Run | Multiply | Fold] = []
        for action in self.done:
            if isinstance(action, Multiply | Fold):
                made.append(action)
                continue
            length, roots, computed = action
            made.append(run_of(self.graph, length, roots, computed, Place))
        return made

    def run(self, breaks: list["Break"], results: list["Stored"]) -> int:
        """All of a program, after what comes before its steps, and how much that is."""
        shared, before = shared_of(self.graph, breaks, results), 0
        stored = waiting_of(self.graph, breaks, results)
        for self.level in (FIXED, STEP, ROW):
            for i, (action, value, level, _) in enumerate(breaks):
                if level == self.level:
                    places = self.places_of(value)
                    if level == ROW:
                        self.store_all(stored, i)
                    self.end(action and action(places))
            for piece in shared.get(self.level, ()):
                self.keep(piece)
            if self.level == ROW:
                self.store_all(stored, len(breaks))
            self.end(None)
            if self.level == FIXED:
                before = len(self.done)
        return before


# A product or a fold, made of the places of a value, or None where that is only to be
# computed by then; how often there is another one; and the array that it gives.
Break = tuple[Callable[[Any], Multiply | Fold] | None, Value, int, Key | None]
# Where a value is written to: the key of an array, and whether it is of the new state.
Stored = tuple[Key, Value, bool]


def shared_of(
    graph: Graph, breaks: list[Break], results: list[Stored]
) -> dict[int, dict[Piece, None]]:
    """What rows have in common that is read where there are more of them, by level."""
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

    for _, value, level, _ in breaks:
        for piece in value:
            visit(piece, level)
    for _, value, _ in results:
        for piece in value:
            visit(piece, ROW)
    return found


# Results and where they go, by how many breaks come before them.
Waiting = dict[int, list[tuple[Piece, Place]]]


def waiting_of(graph: Graph, breaks: list[Break], results: list[Stored]) -> Waiting:
    """Results, each to be stored as soon as what it is computed of is at hand."""
    given = {key: i + 1 for i, (*_, key) in enumerate(breaks)}
    # what breaks without an action have computed, which is then spread
    computed = {
        a.node: i + 1
        for i, (act, value, *_) in enumerate(breaks)
        if not act
        for a in value
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
