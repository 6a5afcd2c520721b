"""The way back through a step as a program: that of the jaxpr of the pulled back step.

It is a step like any other, run from the last to the first. Its inputs are what was
saved and the gradients of the outputs; its state is the gradient of the state, and sums
of the gradients of weights that the update has; its outputs are the gradients of the
products and of the input maps; its matrices are transposed.
"""

from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import Literal

from jaxseq._base.dtypes import floats, is_float
from jaxseq._engine.chain import needed
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.step import Step
from jaxseq._engine.steps import product_back, pull, reads
from jaxseq._kernels.cpu.columns import Graph, Key, Value, width_of
from jaxseq._kernels.cpu.program import Program, Traced, limited, settled
from jaxseq._kernels.cpu.runs import Multiply, Place, Runs
from jaxseq._kernels.cpu.trace import Tracer, Unknown


class Back(NamedTuple):
    """The program, and of what its arrays are: pairs of a kind and a number."""

    program: Program
    inputs: list[tuple[str, int]]  # "z_x", "z", "state" or "y", those that are read
    called: list[int]  # matrices, to be transposed
    extra: list[int]
    sums: list[int]  # extras whose gradients are states, behind those of the state
    outputs: list[tuple[str, int]]  # "z" or "z_x"


_backs: WeakKeyDictionary[Step, Back | str] = WeakKeyDictionary()


def back_of(step: Step) -> Back | str:
    """The way back through a step, or why there is none."""
    if step not in _backs:
        try:
            _backs[step] = _build(step)
        except Unknown as reason:
            _backs[step] = str(reason)
    return _backs[step]


def _build(step: Step) -> Back:
    _check(step)
    return _scheduled(settled(lambda cuts: _TracedBack(step, cuts)))


def _check(step: Step) -> None:
    lead, dtype = step.state[0].shape[:-1], step.state[0].dtype
    for a in (*step.z_x, *step.state, *step.z, *step.ys, *step.lefts):
        if not a.shape or a.shape[:-1] != lead or 0 in a.shape:
            raise Unknown(f"a row has shape {a.shape}")
        if a.dtype != dtype or not is_float(a):
            raise Unknown(f"a row is {a.dtype}")
    for a in step.extra:
        if len(a.shape) != 1 or a.shape[0] == 0 or a.dtype != dtype:
            text = f"{a.dtype} of shape {a.shape}"
            raise Unknown(f"{text} in extra is not a vector as the state is")


class _TracedBack(Traced):
    """The values of a step on its way back, for columns that are cut in some places."""

    def __init__(self, step: Step, cuts: dict[Key, set[int]]):
        super().__init__(Graph(cuts))
        jaxpr, d = _jaxpr_of(step)
        other = [i for i, p in enumerate(step.tells) if p is None]
        joined = {p: i for i, p in enumerate(step.tells) if p is not None}
        names = [
            *(("z_x", i) for i in range(len(step.z_x))),
            *(("z", i) for i in range(len(step.z))),
            *(("state", p) for p in range(len(step.state))),
            *(("y", j) for j in range(len(step.ys))),
        ]
        number = {name: i for i, name in enumerate(names)}
        self.names = names

        def inputs(kind: str, numbers: Any, like: Any) -> list[Value]:
            key = lambda i: ("input", number[kind, i])
            return [self.array(key(i), like[i].shape[-1]) for i in numbers]

        def incoming(p: int, like: Any) -> Value:
            """The gradient of the new state, with that of outputs that are the same."""
            d = self.array(("state", p), like.shape[-1])
            if p in joined:
                (more,) = inputs("y", [joined[p]], step.ys)
                d = self.graph.operate("add", d, more)
            return d

        args = [
            *inputs("z_x", range(len(step.z_x)), step.z_x),
            *inputs("z", range(len(step.z)), step.z),
            *inputs("state", range(len(step.state)), step.state),
            *(self.array(("extra", i), a.shape[-1]) for i, a in enumerate(step.extra)),
            *(incoming(p, a) for p, a in enumerate(step.state)),
            *inputs("y", other, step.ys),
        ]
        self.called: list[int] = []

        def product(k: int, left: Value) -> Value:
            number = len(self.called)
            made = lambda places: Multiply(number, False, places)
            self.breaks.append((made, left))
            self.called.append(k)
            return self.array(("product", k), step.widths[k][0])

        tracer = _Tracer(self.graph, step.state[0].dtype, {}, product, None)
        out = dict(zip(jaxpr.outvars, tracer.evaluate(jaxpr, args), strict=True))
        tracer.check(jaxpr, [v for v in d.extra if v is not None])
        parts = reads(step).parts
        self.sums = [i for i, part in enumerate(parts) if part is None]
        self.outputs = [
            *(("z", i) for i in range(len(step.z))),
            *(("z_x", i) for i, k in enumerate(step.sums) if k is None),
        ]

        def value(v: Any, like: Any) -> Value:
            found = tracer.literal(v) if type(v) is Literal else out[v]
            wide = width_of(found) == 1 != like.shape[-1]
            return [found[0]._replace(length=like.shape[-1])] if wide else found

        n = len(step.state)
        self.new = [
            self.stored(("state", p), value(v, a))
            for p, (v, a) in enumerate(zip(d.state, step.state, strict=True))
        ]
        for i, e in enumerate(self.sums):
            key, like = ("state", n + i), step.extra[e]
            total = self.array(key, like.shape[-1])
            total = self.graph.operate("add", total, value(d.extra[e], like))
            self.new.append(self.stored(key, total))
        self.ys = [
            self.stored(
                ("output", j), value(getattr(d, kind)[i], getattr(step, kind)[i])
            )
            for j, (kind, i) in enumerate(self.outputs)
        ]


def _jaxpr_of(step: Step) -> tuple[Any, Any]:
    """Of a step on its way back, and which variable is the gradient of what."""
    ys = zip(step.ys, step.tells, strict=True)
    d_ys = floats(tuple(a if p is None else None for a, p in ys))
    args = step.z_x, step.z, step.state, step.extra, step.state, d_ys
    f = partial(pull, step, 0, product_back(step))
    with jax.sharding.use_abstract_mesh(NO_MESH):
        closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    d: Any = jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.outvars)
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

    def equation(self, e: Any, args: list[Value]) -> list[Value]:
        axes = e.params.get("axes")
        rows = tuple(range(len(e.invars[0].aval.shape) - 1)) if e.invars else ()
        if e.primitive.name == "reduce_sum" and tuple(axes) == rows:
            return args
        return super().equation(e, args)

    def check(self, jaxpr: Any, sums: list[Any]) -> None:
        """That of such a sum there is nothing but such gradients."""
        summed: set[Any] = set()
        for e in jaxpr.eqns:
            is_sum = e.primitive.name == "reduce_sum"
            if is_sum or summed & {v for v in e.invars if type(v) is not Literal}:
                summed |= set(e.outvars)
                if e.primitive.name not in LINEAR:
                    raise Unknown(f"{e.primitive.name} of a sum over rows")
        for v in jaxpr.outvars:
            if v in summed and not any(v is d for d in sums):
                raise Unknown("a gradient is a sum over rows")


LINEAR = frozenset("reduce_sum add_any reshape squeeze neg".split())


def _scheduled(traced: _TracedBack) -> Back:
    runs = Runs(traced.graph, 0)
    for j, value in enumerate(traced.ys):
        first = 0
        for p in value:
            runs.homes[p] = Place(("output", j), first, False)
            first += p.length
    for action, value in traced.breaks:
        runs.end(action(runs.places_of(value)))
    for p, value in enumerate(traced.new):
        runs.store(("state", p), value, True)
    for j, value in enumerate(traced.ys):
        runs.store(("output", j), value, False)
    runs.end(None)
    actions = runs.actions()
    places = [p for a in actions for p in a.places]
    read = {p.key for p in places}
    kept = lambda key: key in read or key[0] in ("state", "output", "product")
    columns = {k: n for k, n in traced.columns().items() if kept(k)}
    columns |= {place.key: [length] for place, length in runs.kept}
    of = lambda kind: sorted(i for k, i in columns if k == kind)
    if not of("input"):
        raise Unknown("the way back reads nothing of a step")
    inputs = [traced.names[i] for i in of("input")]
    program = Program(columns, actions, {})
    lists = inputs, traced.called, of("extra"), traced.sums, traced.outputs
    return Back(limited(program, *lists, traced.new), *lists)
