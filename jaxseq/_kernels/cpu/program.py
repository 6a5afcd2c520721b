"""A step as a program for the kernel: columns in memory, and runs between products."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax.numpy as jnp
from jax.extend.core import Literal

from jaxseq._base.dtypes import is_float
from jaxseq._engine.chain import product_p
from jaxseq._engine.step import Step
from jaxseq._kernels.cpu.code import Run, run_of
from jaxseq._kernels.cpu.columns import Graph, Key, Piece, Value, edges_of
from jaxseq._kernels.cpu.trace import Tracer, Unknown

MOST_COLUMNS = 256
MOST_TURNS = 32


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


class Program(NamedTuple):
    columns: dict[Key, list[int]]  # the lengths of each array's columns
    actions: list[Run | Multiply | Fold]
    sums: dict[int, int]  # of products that are added to an input map, which one


_programs: WeakKeyDictionary[Step, Program | str] = WeakKeyDictionary()


def program_of(step: Step) -> Program | str:
    """The program of a step, or why there is none."""
    if step not in _programs:
        try:
            _programs[step] = _build(step)
        except Unknown as reason:
            _programs[step] = str(reason)
        except RecursionError:
            _programs[step] = "the update is too long"
    return _programs[step]


def _build(step: Step) -> Program:
    _check(step)
    cuts: dict[Key, set[int]] = {}
    for _ in range(MOST_TURNS):
        traced = _Traced(step, cuts)
        if (new := traced.cuts()) == cuts:
            return _scheduled(step, traced)
        cuts = new
        if sum(map(len, cuts.values())) > MOST_COLUMNS:
            break
    raise Unknown("the update cuts rows into too many pieces")


def limited(program: Program, *kinds: Any) -> Program:
    """A program that src/read.h takes: it has room for so many and no more."""
    widths: dict[bool, int] = {True: 0, False: 0}
    for (kind, _), lengths in program.columns.items():
        widths[kind == "between"] += sum(lengths)
    columns = sum(map(len, program.columns.values()))
    for name, number, most in (
        ("arrays of a kind", max(map(len, kinds)), 256),
        ("arrays", len(program.columns), 512),
        ("pieces of rows", columns, 4096),
        ("stages", len(program.actions), 1024),
        ("numbers in a row", widths[False], 1 << 24),
        ("numbers in between", widths[True], 256 * widths[False] + 1),
    ):
        if number >= most:
            raise Unknown(f"the update has {number} {name}")
    return program


def _check(step: Step) -> None:
    lead, dtype = step.state[0].shape[:-1], step.state[0].dtype
    if not is_float(step.state[0]):
        raise Unknown(f"the state is {dtype}")
    for a in (*step.z_x, *step.state, *step.ys):
        # a row, or a number for each of them
        if lead not in (a.shape, a.shape[:-1]) or 0 in a.shape:
            raise Unknown(f"a row has shape {a.shape}")
        if a.dtype not in (dtype, jnp.dtype(bool)):
            raise Unknown(f"the state is {dtype}, and a row is {a.dtype}")
    for a in (*step.z, *step.lefts):
        if not a.shape or a.shape[:-1] != lead or a.dtype != dtype or 0 in a.shape:
            raise Unknown(f"a matrix is given {a.dtype} of shape {a.shape}")
    for a in step.extra:
        if math.prod(a.shape) != width(a) or 0 in a.shape or a.dtype != dtype:
            text = f"{a.dtype} of shape {a.shape}"
            raise Unknown(f"{text} in extra is not a vector as the state is")


def width(a: Any, lead: tuple[int, ...] = ()) -> int:
    """How many numbers each row has."""
    return a.shape[-1] if len(a.shape) > len(lead) else 1


class Traced:
    """Values in the columns of arrays."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.widths: dict[Key, int] = {}
        self.breaks: list[tuple[Any, Value]] = []  # products, folds, of what

    def array(self, key: Key, width: int) -> Value:
        self.widths[key] = width
        return self.graph.array(key, width)

    def stored(self, key: Key, value: Value) -> Value:
        """A value in the columns of the array that it is written to."""
        graph = self.graph
        self.widths.setdefault(key, sum(p.length for p in value))
        graph.wanted[key] |= edges_of(value)
        return graph.cut(value, graph.cuts.get(key, ()))

    def cuts(self) -> dict[Key, set[int]]:
        """Where columns have to begin: those cuts that there are, and those wanted."""
        cuts = dict(self.graph.cuts)
        for key, edges in self.graph.wanted.items():
            inside = {e for e in edges if 0 < e < self.widths[key]}
            if inside - cuts.get(key, set()):
                cuts[key] = cuts.get(key, set()) | inside
        return cuts

    def columns(self) -> dict[Key, list[int]]:
        return {
            key: [p.length for p in self.graph.array(key, width)]
            for key, width in self.widths.items()
        }


class _Traced(Traced):
    """The values of a step, for columns that are cut in some places."""

    def __init__(self, step: Step, cuts: dict[Key, set[int]]):
        super().__init__(graph := Graph(cuts))
        self.folds: dict[Any, Value] = {}
        self.sums = {k: i for i, k in enumerate(step.sums) if k is not None}
        lead, bits = step.state[0].shape[:-1], jnp.dtype(bool)
        widths = {k: a.shape[-1] for k, a in zip(step.called, step.z, strict=True)}

        def product(k: int, left: Value) -> Value:
            number = step.called.index(k)
            made = lambda places: Multiply(number, k in self.sums, places)
            self.breaks.append((made, left))
            return self.array(("product", k), widths[k])

        def fold(op: int, a: Value, width: int) -> Value:
            name = op, tuple(a), width
            if name not in self.folds:
                key = "between", len(self.folds)
                self.breaks.append((lambda places: Fold(op, key, places), a))
                self.folds[name] = self.array(key, width)
            return self.folds[name]

        tracer = Tracer(graph, step.state[0].dtype, _joined(step), product, fold)

        def arrays(name: str, like: Any, lead: Any) -> Iterator[Value]:
            for i, a in enumerate(like):
                rows = self.array((name, i), width(a, lead))
                yield tracer.as_truth(rows) if a.dtype == bits else rows

        args = [
            *arrays("input", step.z_x, lead),
            *arrays("state", step.state, lead),
            *arrays("extra", step.extra, ()),
        ]
        out = tracer.evaluate(step.jaxpr, args)

        def stored(name: str, i: int, like: Any, value: Value) -> Value:
            value = tracer.as_number(value) if like.dtype == bits else value
            value = tracer.wide(value, width(like, lead))
            return self.stored((name, i), value)

        n = len(step.state)
        news = zip(step.state, out[:n], strict=True)
        self.new = [stored("state", i, *pair) for i, pair in enumerate(news)]
        ys = zip(step.ys, out[n:], step.tells, strict=True)
        self.ys = [
            None if p is not None else stored("output", j, a, value)
            for j, (a, value, p) in enumerate(ys)
        ]


def _joined(step: Step) -> Any:
    """The sums of a part of z_x and a product, which stand where the product does."""
    made: dict[Any, int] = {
        e.outvars[0]: e.params["k"] for e in step.jaxpr.eqns if e.primitive is product_p
    }
    found = {}
    for i, k in enumerate(step.sums):
        for e in step.jaxpr.eqns if k is not None else ():
            if step.jaxpr.invars[i] in [v for v in e.invars if type(v) is not Literal]:
                at = next(n for n, v in enumerate(e.invars) if made.get(v) == k)
                found[e.outvars[0]] = lambda args, at=at: args[at]
    return found


def _scheduled(step: Step, traced: _Traced) -> Program:
    runs = Runs(traced.graph, len(traced.folds))
    for action, value in traced.breaks:
        runs.end(action(runs.places_of(value)))
    for p, value in enumerate(traced.new):
        runs.store(("state", p), value, True)
    for j, value in enumerate(traced.ys):
        if value is not None:
            runs.store(("output", j), value, False)
    runs.end(None)
    columns = traced.columns()
    columns |= {place.key: [length] for place, length in runs.kept}
    program = Program(columns, runs.actions(), traced.sums)
    return limited(program, step.z_x, step.called, step.extra, step.state, step.ys)


class Runs:
    """What is computed before each product, and after the last."""

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

    def place(self, piece: Piece) -> Place:
        place = self.homes.get(piece)
        if place is None:
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

    def store(self, key: Key, value: Value, fresh: bool) -> None:
        first = 0
        for p in value:
            place = Place(key, first, fresh)
            first += p.length
            if self.places.get(p) == place:
                continue
            self.wanted.setdefault(p.length, []).append((p.node, place))

    def end(self, action: Multiply | Fold | None) -> None:
        """Ends what comes before a product or a fold."""
        for length, roots in self.wanted.items():
            computed: dict[int, Place | None] = {}
            self.visit([node for node, _ in roots], length, computed)
            for node, place in computed.items():
                if place is None:
                    self.owner.setdefault(Piece(node, length), roots)
            self.done.append((length, roots, computed))
        self.wanted = {}
        if action is not None:
            self.done.append(action)

    def visit(self, nodes: Any, length: int, computed: dict[int, Any]) -> None:
        """Which nodes are computed, and where others are that were kept."""
        for node in nodes:
            op, *args = self.graph.nodes[node]
            if op in ("at", "constant") or node in computed:
                continue
            piece = Piece(node, length)
            own = any(node == n for n, _ in self.wanted.get(length, ()))
            if piece in self.owner and not own:
                computed[node] = self.places.get(piece) or self.cross(piece)
                continue
            if piece in self.places and not own:
                computed[node] = self.places[piece]
                continue
            computed[node] = None
            self.visit(args, length, computed)

    def actions(self) -> list[Run | Multiply | Fold]:
        made: list[Run | Multiply | Fold] = []
        for action in self.done:
            if isinstance(action, Multiply | Fold):
                made.append(action)
                continue
            length, roots, computed = action
            made.append(run_of(self.graph, length, roots, computed, Place))
        return made
