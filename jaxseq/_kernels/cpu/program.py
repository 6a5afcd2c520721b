"""A step as a program for the kernel: columns in memory, and runs between products."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax.numpy as jnp
from jax.extend.core import Literal

from jaxseq._engine.chain import product_p
from jaxseq._engine.step import Step
from jaxseq._kernels.cpu.blocks import Blocks
from jaxseq._kernels.cpu.code import Run
from jaxseq._kernels.cpu.columns import (
    FIXED,
    ROW,
    STEP,
    Graph,
    Key,
    Piece,
    Value,
    edges_of,
)
from jaxseq._kernels.cpu.counts import COUNTS, counts_of
from jaxseq._kernels.cpu.elements import Unknown, as_number, as_truth, rounded
from jaxseq._kernels.cpu.folds import FOLDS
from jaxseq._kernels.cpu.rows import Rows, check
from jaxseq._kernels.cpu.runs import Runs
from jaxseq._kernels.cpu.schedule import Break, Fold, Multiply
from jaxseq._kernels.cpu.trace import Part, Tracer

MOST_COLUMNS = 1024
MOST_BLOCKS = 256  # of a matrix, for which src/read_plan.h has no room
MOST_TURNS = 32


class Program(NamedTuple):
    columns: dict[Key, list[int]]  # the lengths of each array's columns
    actions: list[Run | Multiply | Fold]
    sums: dict[int, int]  # of products that are added to an input map, which one
    before: int  # of the actions, how many come before all steps


Made = WeakKeyDictionary[Step, dict[Any, Any]]
_programs: Made = WeakKeyDictionary()


def program_of(
    step: Step, blocks: tuple[Blocks, ...], alike: bool = False
) -> Program | str:
    """The program of a step for such matrices, or why there is none.

    If rows are `alike`, they all have the same of what has no rows in a step.
    """
    return made(_programs, step, (blocks, alike), _build)


def made(known: Made, step: Step, how: Any, build: Callable[..., Any]) -> Any:
    of_step = known.setdefault(step, {})
    if how not in of_step:
        try:
            of_step[how] = build(step, *how)
        except Unknown as reason:
            of_step[how] = str(reason)
        except RecursionError:
            of_step[how] = "the update is too long"
    return of_step[how]


def _build(step: Step, blocks: tuple[Blocks, ...], alike: bool) -> Program:
    rows = check(step)
    make = lambda cuts: _Traced(step, rows, blocks, alike, cuts)
    return _scheduled(step, settled(make))


def limited(program: Program, *kinds: Any) -> Program:
    """A program that src/read_actions.h takes: it has room for so many and no more."""
    widths: dict[bool, int] = {True: 0, False: 0}
    for (kind, _), lengths in program.columns.items():
        widths[kind in ("between", "shared")] += sum(lengths)
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


class Traced:
    """Values in the columns of arrays."""

    tracer: Tracer

    def __init__(self, graph: Graph, rows: Rows, alike: bool):
        self.graph, self.rows = graph, rows
        self.alike = alike
        self.folds: dict[Any, Value] = {}
        self.widths: dict[Key, int] = {}
        self.breaks: list[Break] = []

    def array(self, key: Key, width: int, level: int = ROW) -> Value:
        self.widths[key] = width
        return self.graph.array(key, width, level)

    def fold(self, name: str, a: Value, width: int) -> Value:
        graph, known = self.graph, (name, tuple(a))
        level = max(FIXED, *(graph.levels[p.node] for p in a))
        if name == "spread":
            if known not in self.folds:
                self.folds[known] = a
                self.breaks.append(Break(None, a, level, None))
            return [Piece(graph.node("spread", a[0].node), width)]
        if known not in self.folds:
            n, op = len(self.folds), FOLDS.index(name)
            key = ("between", n) if level == ROW else ("shared", n + 1)
            fold = lambda places: Fold(op, key, places)
            self.breaks.append(Break(fold, a, level, key))
            self.folds[known] = self.array(key, width, level)
        return self.folds[known]

    def count(self, n: int) -> Value:
        return self.array(("extra", COUNTS + n), n, FIXED)

    def given(
        self, key: Key, like: Any, has_rows: bool | None = None, alike: bool = True
    ) -> Part:
        """An argument of the step; `alike=False` for one that always differs by row."""
        width = math.prod(like.shape) if has_rows is False else self.rows.width(like)
        level = FIXED if key[0] == "extra" else ROW
        if self.alike and alike and level == ROW and not self.rows.has(like):
            level = STEP
        value = self.array(key, width, level)
        if like.dtype == jnp.dtype(bool):
            value = as_truth(self.graph, value)
        has_rows = self.rows.has(like) if has_rows is None else has_rows
        return Part(value, has_rows and bool(self.rows.lead))

    def result(self, key: Key, like: Any, part: Part) -> Value:
        """What the step gives, in the columns of an array."""
        part = self.tracer.in_rows(like.shape, part)
        if part.rows != (self.rows.has(like) and bool(self.rows.lead)):
            raise Unknown(f"a row of shape {like.shape} is the same for all rows")
        value = self.tracer.wide(part.value, self.rows.width(like))
        if like.dtype == jnp.dtype(bool):
            value = as_number(self.graph, value)
        if key[0] == "state":
            value = rounded(self.graph, like.dtype, value)
        return self.stored(key, value)

    def product(self, k: int, first: int, left: Value, how: Blocks, adds: bool) -> Any:
        """A value times the blocks of a matrix, the first of which has this number."""
        graph, key = self.graph, ("product", k)
        if how.N >= MOST_BLOCKS:
            raise Unknown(f"a matrix has {how.N} blocks")
        for n in range(how.N):
            ends = [((p * how.N + n) * how.I, how.I) for p in range(how.P)]
            parts = [part for a, I in ends for part in graph.slice(left, a, a + I)]
            multiply = partial(Multiply, first + n, adds)
            self.breaks.append(Break(multiply, parts, ROW, key))
        width = how.Q * how.N * how.O
        graph.wanted[key] |= set(range(how.O, width, how.O))
        return self.array(key, width)

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


def settled(make: Callable[[dict[Key, set[int]]], Any]) -> Any:
    """Values in columns that are cut wherever one of them needs it."""
    cuts: dict[Key, set[int]] = {}
    for _ in range(MOST_TURNS):
        traced = make(cuts)
        if (new := traced.cuts()) == cuts:
            return traced
        cuts = new
        if sum(map(len, cuts.values())) > MOST_COLUMNS:
            break
    raise Unknown("it cuts rows into too many pieces")


class _Traced(Traced):
    """The values of a step, for columns that are cut in some places."""

    def __init__(self, step: Step, rows: Rows, blocks: Any, alike: bool, cuts: Any):
        super().__init__(Graph(cuts), rows, alike)
        self.sums = {k: i for i, k in enumerate(step.sums) if k is not None}

        def product(k: int, left: Value) -> Value:
            i = step.called.index(k)
            first = sum(how.N for how in blocks[:i])
            return self.product(k, first, left, blocks[i], k in self.sums)

        tracer = self.tracer = Tracer(
            self.graph, rows.dtype, rows.lead, _joined(step), product,
            self.fold, self.count,
        )  # fmt: skip
        n, of = len(step.state), rows.is_given_rows
        own = [i for i, a in enumerate(step.extra) if of(a)]  # parts of the state
        keys = {i: ("state", n + k) for k, i in enumerate(own)}
        others = [i for i in range(len(step.extra)) if i not in keys]
        keys |= {i: ("extra", k) for k, i in enumerate(others)}
        args = [
            *(self.given(("input", i), a) for i, a in enumerate(step.z_x)),
            *(self.given(("state", i), a) for i, a in enumerate(step.state)),
            *(self.given(keys[i], a, of(a)) for i, a in enumerate(step.extra)),
        ]
        out = tracer.evaluate(step.jaxpr, args)
        news = zip(step.state, out[:n], strict=True)
        self.new = [self.result(("state", i), *pair) for i, pair in enumerate(news)]
        for i in own:
            value = args[len(step.z_x) + n + i]
            self.new.append(self.result(keys[i], step.extra[i], value))
        ys = zip(step.ys, out[n:], step.tells, strict=True)
        self.ys = [
            None if p is not None else self.result(("output", j), a, value)
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
    ys = [(("output", j), a, False) for j, a in enumerate(traced.ys) if a is not None]
    new = [(("state", p), value, True) for p, value in enumerate(traced.new)]
    before = runs.run(traced.breaks, [*new, *ys])
    columns = {**traced.columns(), **runs.columns()}
    program = Program(columns, runs.actions(), traced.sums, before)
    extra = *step.extra, *counts_of(columns)
    return limited(program, step.z_x, step.called, extra, step.state, step.ys)
