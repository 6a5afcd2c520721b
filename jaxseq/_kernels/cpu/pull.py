"""The way back through a step as a program: that of the jaxpr of the pulled back step.

It is a step like any other, run from the last to the first. Its inputs are what was
saved and the gradients of the outputs; its state is the gradient of the state, and sums
of the gradients of weights that the update has; its outputs are the gradients of the
products and of the input maps; its matrices are transposed.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import Literal

from jaxseq._base.dtypes import is_float
from jaxseq._engine.chain import needed
from jaxseq._engine.step import Step
from jaxseq._engine.steps import pulled_back, reads
from jaxseq._kernels.cpu.blocks import Blocks
from jaxseq._kernels.cpu.columns import Graph, Key, Value, width_of
from jaxseq._kernels.cpu.elements import Unknown
from jaxseq._kernels.cpu.folds import folded
from jaxseq._kernels.cpu.program import Made, Program, Traced, limited, made, settled
from jaxseq._kernels.cpu.rows import Rows, check
from jaxseq._kernels.cpu.runs import Runs
from jaxseq._kernels.cpu.schedule import Fold, Place
from jaxseq._kernels.cpu.trace import CALLS, Part, Tracer


class Back(NamedTuple):
    """The program, and of what its arrays are: pairs of a kind and a number."""

    program: Program
    inputs: list[tuple[str, int]]  # "z_x", "z", "state" or "y", those that are read
    called: list[int]  # matrices, to be transposed
    extra: list[int]
    sums: list[int]  # extras whose gradients are states, behind those of the state
    given_rows: list[int]  # extras that are states behind these, and stay as they are
    outputs: list[tuple[str, int]]  # "z" or "z_x"


_backs: Made = WeakKeyDictionary()


def back_of(step: Step, blocks: tuple[Blocks, ...], alike: bool = False) -> Back | str:
    """The way back through a step with such matrices, or why there is none."""
    return made(_backs, step, (blocks, alike), _build)


def _build(step: Step, blocks: tuple[Blocks, ...], alike: bool) -> Back:
    rows = check(step)
    make = lambda cuts: _TracedBack(step, rows, blocks, alike, cuts)
    return _scheduled(settled(make))


class _TracedBack(Traced):
    """The values of a step on its way back, for columns that are cut in some places."""

    def __init__(self, step: Step, rows: Rows, blocks: Any, alike: bool, cuts: Any):
        super().__init__(Graph(cuts), rows, alike)
        jaxpr, d = _jaxpr_of(step)
        told = enumerate(zip(step.ys, step.tells, strict=True))
        other = [j for j, (y, p) in told if p is None and is_float(y)]
        joined = {p: i for i, p in enumerate(step.tells) if p is not None}
        self.names = names = [
            *(("z_x", i) for i in range(len(step.z_x))),
            *(("z", i) for i in range(len(step.z))),
            *(("state", p) for p in range(len(step.state))),
            *(("y", j) for j in range(len(step.ys))),
        ]
        number = {name: i for i, name in enumerate(names)}
        moving = [p for p, a in enumerate(step.state) if is_float(a)]
        parts = reads(step).parts
        each = enumerate(zip(step.extra, parts, strict=True))
        self.sums = [i for i, (a, part) in each if is_float(a) and part is None]
        self.given_rows = [i for i, a in enumerate(step.extra) if rows.is_given_rows(a)]
        behind = len(moving) + len(self.sums)

        def inputs(kind: str, numbers: Any, like: Any) -> list[Part]:
            alike = kind != "y"  # gradients are those of each row
            keys = ((i, ("input", number[kind, i])) for i in numbers)
            return [self.given(key, like[i], alike=alike) for i, key in keys]

        def of_all_rows(part: Part) -> Part:
            """The gradient of what all rows share is the sum of what each row has."""
            return part._replace(partial=bool(rows.lead) and not part.rows)

        def incoming(key: Key, p: int, like: Any) -> Part:
            """The gradient of the new state, with that of outputs that are the same."""
            part = of_all_rows(self.given(key, like, alike=False))
            if p not in joined:
                return part
            (more,) = inputs("y", [joined[p]], step.ys)
            value = self.graph.operate("add", part.value, more.value)
            return part._replace(value=value)

        def extra(i: int, like: Any) -> Part:
            if i not in self.given_rows:
                return self.given(("extra", i), like, False)
            key = "state", behind + self.given_rows.index(i)
            return self.given(key, like)

        args = [
            *inputs("z_x", range(len(step.z_x)), step.z_x),
            *inputs("z", range(len(step.z)), step.z),
            *inputs("state", range(len(step.state)), step.state),
            *(extra(i, a) for i, a in enumerate(step.extra)),
            *(incoming(("state", i), p, step.state[p]) for i, p in enumerate(moving)),
            *map(of_all_rows, inputs("y", other, step.ys)),
        ]
        self.called: list[int] = []

        def product(k: int, left: Value) -> Value:
            how = [blocks[step.called.index(i)] for i in (*self.called, k)]
            first = sum(b.N for b in how[:-1])
            self.called.append(k)
            return self.product(k, first, left, how[-1].turned, False)

        tracer = self.tracer = _Tracer(
            self.graph, rows.dtype, rows.lead, {}, product, self.fold, self.count
        )
        out = dict(zip(jaxpr.outvars, tracer.evaluate(jaxpr, args), strict=True))
        self.outputs = [
            *(("z", i) for i in range(len(step.z))),
            *(
                ("z_x", i)
                for i, (a, k) in enumerate(zip(step.z_x, step.sums, strict=True))
                if k is None and is_float(a)
            ),
        ]
        part = lambda v: tracer.literal(v) if type(v) is Literal else out[v]
        is_sum = lambda part: part.partial or self.graph.is_uniform(part.value)
        self.new = []
        for i, p in enumerate(moving):
            new = part(d.state[p])
            if rows.lead and not (rows.has(step.state[p]) or is_sum(new)):
                raise Unknown("the gradient of a number in the state is not a sum")
            self.new.append(self.result(("state", i), step.state[p], new))
        for i, e in enumerate(self.sums):
            key, like = ("state", len(moving) + i), step.extra[e]
            more = tracer.in_rows(like.shape, part(d.extra[e]))
            is_own = more.rows if e in self.given_rows else is_sum(more)
            if rows.lead and not is_own:
                raise Unknown(f"a weight {like.shape} of the update is for each row")
            total = self.array(key, rows.width_of_weight(like))
            value = tracer.wide(more.value, width_of(total))
            total = self.graph.operate("add", total, value)
            self.new.append(self.stored(key, total))
        for i in self.given_rows:
            like, given = step.extra[i], extra(i, step.extra[i])
            key = "state", behind + self.given_rows.index(i)
            self.new.append(self.result(key, like, given))
        self.ys = [
            self.result(
                ("output", j), getattr(step, kind)[i], part(getattr(d, kind)[i])
            )
            for j, (kind, i) in enumerate(self.outputs)
        ]


def _jaxpr_of(step: Step) -> tuple[Any, Any]:
    """Of a step on its way back, and which variable is the gradient of what."""
    closed, d = pulled_back(step)
    jaxpr = closed.jaxpr
    parts = zip(d.extra, reads(step).parts, strict=True)
    d = d._replace(extra=tuple(a if part is None else None for a, part in parts))
    if closed.consts:
        raise Unknown("the way back has an array in it")
    outvars = jax.tree.leaves((d.z_x, d.z, d.state, d.extra))
    outvars = list(dict.fromkeys(v for v in outvars if type(v) is not Literal))
    eqns = needed(jaxpr.eqns, outvars)
    return jaxpr.replace(eqns=eqns, outvars=outvars), d


class _Tracer(Tracer):
    """Sums over all rows are left to who has the gradients of each row."""

    def equation(self, e: Any, args: list[Part]) -> list[Part]:
        n, name = len(self.lead), e.primitive.name
        if n and name == "reduce_sum" and args[0].rows:
            axes = e.params["axes"]
            if set(range(n)) <= set(axes):
                rest = {**e.params, "axes": tuple(axes[n:])}
                part = folded(self, e.replace(params=rest), args[0])
                return [Part(part.value, False, True)]
        out = super().equation(e, args)
        partial = [a.partial for a in args]
        if not any(partial) or name in CALLS or name == "cond":
            return out
        once = {"mul": sum(partial) == 1, "div": not partial[-1]}
        cases = zip(args[1:], partial[1:], strict=True)
        one_of = not partial[0] and all(
            yes or self.is_zero(a.value) for a, yes in cases
        )
        once["select_n"] = one_of
        if not (once.get(name) or name in LINEAR) or any(a.rows for a in out):
            raise Unknown(f"{name} of a sum over rows")
        return [a._replace(partial=True) for a in out]


LINEAR = frozenset(
    "reduce_sum add_any add sub neg reshape squeeze broadcast_in_dim transpose"
    " convert_element_type copy".split()
)


def _scheduled(traced: _TracedBack) -> Back:
    runs = Runs(traced.graph, len(traced.folds))
    for j, value in enumerate(traced.ys):
        first = 0
        for p in value:
            runs.homes[p] = Place(("output", j), first, False)
            first += p.length
    ys = [(("output", j), value, False) for j, value in enumerate(traced.ys)]
    new = [(("state", p), value, True) for p, value in enumerate(traced.new)]
    before = runs.run(traced.breaks, [*new, *ys])
    actions = runs.actions()
    places = [p for a in actions for p in a.places]
    read = {p.key for p in places} | {a.out for a in actions if isinstance(a, Fold)}
    kept = lambda key: key in read or key[0] in ("state", "output", "product")
    columns = {k: n for k, n in traced.columns().items() if kept(k)}
    columns |= runs.columns()
    of = lambda kind: sorted(i for k, i in columns if k == kind)
    if not of("input"):
        raise Unknown("the way back reads nothing of a step")
    inputs = [traced.names[i] for i in of("input")]
    program = Program(columns, actions, {}, before)
    lists = inputs, traced.called, of("extra"), traced.sums
    lists = *lists, traced.given_rows, traced.outputs
    return Back(limited(program, *lists, traced.new), *lists)
