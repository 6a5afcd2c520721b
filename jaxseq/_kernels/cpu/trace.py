"""The jaxpr of a step as values of a graph, if the kernel has all that is in it."""

import math
from functools import partial
from typing import Any, NamedTuple

from jax.extend.core import Literal

from jaxseq._engine.chain import product_p
from jaxseq._kernels.cpu.branches import branched
from jaxseq._kernels.cpu.casts import converted
from jaxseq._kernels.cpu.columns import Graph, Value, width_of
from jaxseq._kernels.cpu.elements import (
    Unknown,
    is_integer_in,
    pointwise,
    unrounded,
)
from jaxseq._kernels.cpu.folds import FOLDED, PLACES, RUNNING, along, folded
from jaxseq._kernels.cpu.integers import Integers
from jaxseq._kernels.cpu.joins import counted, joined
from jaxseq._kernels.cpu.moves import MOVES, View, keeps_rows, moved, spread, whole

# what leaves the values of rows as they are
IDLE = frozenset("copy copy_p stop_gradient optimization_barrier reshard".split())

# what has any value, and no axes
EMPTY = frozenset("empty2 empty".split())


class Part(NamedTuple):
    """What a variable is: the elements of a row, in the order of its axes.

    With `rows` the axes of the rows come first; without, all rows have the same, or
    there is but one. If it is `partial`, the variable is its sum over all rows.
    """

    value: Value
    rows: bool
    partial: bool = False


class Tracer:
    """Evaluates equations on rows. The axes of rows come first in an array.

    An array that is broadcast to a shape that begins with those axes is taken to have
    rows. If that is wrong, its shape does not fit where it is used, and the kernel is
    not used.
    """

    def __init__(
        self,
        graph: Graph,
        dtype: Any,
        lead: tuple[int, ...],
        sums: dict[Any, Any],
        product: Any,
        fold: Any,
        count: Any,
    ):
        self.graph, self.dtype, self.lead = graph, dtype, lead
        self.integers = Integers(graph, dtype)
        self.sums = sums  # of variables that a sum takes the place of: what it is
        self.product = product
        # (name, value, width): a row of one number, of all elements of the value; with
        # "spread" of the only one
        self.fold = fold
        self.count = count  # the numbers 0 to n - 1, as floats

    def evaluate(self, jaxpr: Any, args: list[Part], consts: Any = ()) -> list[Part]:
        if consts:
            raise Unknown("a function in the update closes over an array")
        env = dict(zip(jaxpr.invars, args, strict=True))

        def read(v: Any) -> Part:
            return self.literal(v) if type(v) is Literal else env[v]

        for e in jaxpr.eqns:
            if not e.outvars:  # updates with effects do not come here
                continue
            out = self.equation(e, [read(v) for v in e.invars])
            env.update(zip(e.outvars, out, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def literal(self, v: Any) -> Part:
        if v.aval.shape != ():
            raise Unknown(f"the update has a constant of shape {v.aval.shape}")
        x = v.val.item() if hasattr(v.val, "item") else v.val
        if isinstance(x, bool):
            zero = self.graph.constant(0.0, 1)
            return Part(self.graph.operate("eq" if x else "ne", zero, zero), False)
        if is_integer_in(self.dtype, v.aval):
            return Part(self.integers.constant(x, 1), False)
        return Part(self.graph.constant(float(x), 1), False)

    def equation(self, e: Any, args: list[Part]) -> list[Part]:
        name, p = e.primitive.name, e.params
        if e.primitive is product_p:
            left = self.in_rows(e.invars[0].aval.shape, args[0]).value
            left = unrounded(self.graph, e.invars[0].aval.dtype, left)
            return [Part(self.product(p["k"], left), bool(self.lead))]
        if e.outvars[0] in self.sums:
            return [self.sums[e.outvars[0]](args)]
        inner = p.get("jaxpr") or p.get("call_jaxpr") or p.get("fun_jaxpr")
        if inner is not None:
            if name not in CALLS:
                raise Unknown(f"the kernel has no {name}")
            consts = getattr(inner, "consts", ())
            return self.evaluate(getattr(inner, "jaxpr", inner), args, consts)
        if name in IDLE:
            return args
        if name in MOVES:
            return self.moved(e, args[0])
        if name in ("concatenate", "stack", "pad"):
            return [joined(self, e, args)]
        if name == "cond":
            return branched(self, e, args)
        if name == "iota":
            return [Part(*counted(self, e))]
        if name in EMPTY:
            return [Part(self.graph.constant(0.0, 1), False)]
        if name == "convert_element_type":
            return [args[0]._replace(value=converted(self, e, args[0].value))]
        if name in FOLDED:
            return [folded(self, e, args[0])]
        if name in PLACES or name in RUNNING:
            return [along(self, e, args[0])]
        if not args:
            raise Unknown(f"the kernel has no {name}")
        shape = e.outvars[0].aval.shape
        for i, v in enumerate(e.invars):
            if v.aval.shape not in ((), shape):  # some of its axes have one element
                if len(v.aval.shape) != len(shape):
                    raise Unknown(f"the kernel has no {name}")
                args[i] = self.spread(args[i], v.aval.shape, shape)
        rows, values = self.alike(e, args, [shape] * len(args))
        width = math.prod(self.inside(shape, rows))
        values = [self.wide(a, width) for a in values]
        return [Part(self.computed(e, values), rows)]

    def computed(self, e: Any, values: list[Value]) -> Value:
        """Of each element by itself."""
        known = [is_integer_in(self.dtype, v.aval) for v in e.invars]
        if any(known) and e.primitive.name == "pow" and not known[0]:
            values[1] = self.integers.as_float(e.invars[1].aval.dtype, values[1])
            return self.graph.operate("pow", *values)
        if any(known):
            return self.integers.pointwise(e, values)
        return pointwise(self.graph, self.dtype, e, values)

    def inside(self, shape: Any, rows: bool) -> tuple[int, ...]:
        """The axes of a row."""
        return shape[len(self.lead) :] if rows else shape

    def alike(self, e: Any, args: Any, shapes: Any) -> tuple[bool, list[Value]]:
        """Operands that have rows, all of them or none; but for single numbers."""
        rows = any(a.rows for a in args)
        values = []
        for v, a, shape in zip(e.invars, args, shapes, strict=True):
            if rows and v.aval.shape != ():
                a = self.in_rows(shape, a)
            self.require(a.rows == rows or v.aval.shape == (), e)
            values.append(a.value)
        return rows, values

    def in_rows(self, shape: Any, a: Part) -> Part:
        """The same with rows, if all of it is one number."""
        n = len(self.lead)
        if a.rows or not n or not self.graph.is_uniform(a.value):
            return a
        ok = shape[:n] == self.lead
        width = math.prod(shape[n:])
        return Part(self.wide(a.value, width), True) if ok else a

    def wide(self, a: Value, width: int) -> Value:
        """A number, or what is the same everywhere, for each element of a row."""
        if width_of(a) == width:
            return a
        if len(a) == 1 and self.graph.single[a[0].node]:
            return [a[0]._replace(length=width)] if width else []
        return self.reduce("spread", a, width)

    def reduce(self, name: str, a: Value, width: int) -> Value:
        return self.fold(name, a, width) if width else []

    def moved(self, e: Any, a: Part) -> list[Part]:
        """Elements in another order, some of them or some more than once."""
        shape, outs = e.invars[0].aval.shape, [v.aval.shape for v in e.outvars]
        if self.graph.is_uniform(a.value):
            return [Part(self.wide(a.value, math.prod(s)), False) for s in outs]
        if e.primitive.name == "broadcast_in_dim" and not a.rows:
            return [self.spread(a, shape, outs[0], e.params["broadcast_dimensions"])]
        self.require(not a.rows or keeps_rows(e, self.lead), e)
        of = partial(self.of_one_row, a.rows)
        views = moved(e, whole(of(shape)), list(map(of, outs)))
        return [Part(self.take(a.value, view), a.rows) for view in views]

    def of_one_row(self, rows: bool, shape: Any) -> tuple[int, ...]:
        n = len(self.lead) if rows else 0
        return (1,) * n + shape[n:]

    def spread(self, a: Part, shape: Any, out: Any, dims: Any = None) -> Part:
        """With more elements in some axes."""
        if self.graph.is_uniform(a.value):
            return Part(self.wide(a.value, math.prod(out)), False)
        dims, n = range(len(shape)) if dims is None else dims, len(self.lead)
        moved = [d for i, d in enumerate(dims) if shape[i] != 1]
        rows = a.rows or (n > 0 and out[:n] == self.lead and min(moved, default=n) >= n)
        view = whole(self.of_one_row(a.rows, shape))
        view = spread(view, self.of_one_row(rows, out), dims)
        return Part(self.take(a.value, view), rows)

    def take(self, a: Value, view: View) -> Value:
        """The elements of a value that are in a view."""
        found: Value = []
        for first, length, times in view.runs():
            piece = self.graph.slice(a, first, first + length)
            found += piece if times == 1 else self.wide(piece, times)
        return found

    def is_zero(self, a: Value) -> bool:
        return all(self.graph.number(p.node) == 0 for p in a)

    def require(self, ok: bool, e: Any) -> None:
        if not ok:
            old, new = (v.aval.str_short() for v in (e.invars[0], e.outvars[0]))
            raise Unknown(f"the kernel has no {e.primitive.name} of {old} to {new}")


CALLS = frozenset(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call remat2"
    " checkpoint".split()
)
