"""What a program does: runs of instructions between products and sums over rows."""

from typing import Any

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
from jaxseq._kernels.cpu.schedule import (
    Break,
    Fold,
    Multiply,
    Place,
    Stored,
    Waiting,
    shared_of,
    waiting_of,
)

SHARED = "shared", 0  # what is the same in all rows, and is computed once for them


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

    def store(self, waiting: Waiting, breaks: int) -> None:
        """Has results stored that need no more than so many breaks before them."""
        for i in [i for i in waiting if i <= breaks]:
            for piece, place in waiting.pop(i):
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

    def run(self, breaks: list[Break], results: list[Stored]) -> int:
        """Schedules the program; returns how many actions come before all steps."""
        shared, before = shared_of(self.graph, breaks, results), 0
        waiting = waiting_of(self.graph, breaks, results)
        for level in (FIXED, STEP, ROW):
            self.level = level
            for i, b in enumerate(breaks):
                if b.level == level:
                    places = self.places_of(b.value)
                    if level == ROW:
                        self.store(waiting, i)
                    self.end(b.action and b.action(places))
            for piece in shared.get(level, ()):
                self.keep(piece)
            if level == ROW:
                self.store(waiting, len(breaks))
            self.end(None)
            if level == FIXED:
                before = len(self.done)
        return before
