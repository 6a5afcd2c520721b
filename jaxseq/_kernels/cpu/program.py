"""A step as a program for the kernel: columns in memory, and runs between products."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax.numpy as jnp
from jax.extend.core import Literal

from jaxseq._base.dtypes import is_float
from jaxseq._engine.chain import product_p
from jaxseq._engine.step import Step
from jaxseq._kernels.cpu.code import Run
from jaxseq._kernels.cpu.columns import Graph, Key, Value, edges_of
from jaxseq._kernels.cpu.runs import Fold, Multiply, Runs
from jaxseq._kernels.cpu.trace import Tracer, Unknown

MOST_COLUMNS = 256
MOST_TURNS = 32


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
    return _scheduled(step, settled(lambda cuts: _Traced(step, cuts)))


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
