"""The jaxpr of a step as values of a graph, if the kernel has all that is in it."""

import math
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Literal
from jax.lax import RoundingMethod

from jaxseq._engine.chain import product_p
from jaxseq._kernels.cpu.columns import Graph, Value, width_of

# the instructions of src/ops.h, in its order
OPS = (
    "add sub mul div max min fma fms fnma neg abs sign exp expm1 log log1p tanh"
    " logistic sqrt copy eq ne lt le gt ge and or xor not select floor ceil round"
    " round_even rem pow cbrt exp2 sin cos tan asin acos atan atan2 sinh cosh asinh"
    " acosh atanh erf erfc"
).split()
SAME = {name: name for name in OPS} | {"add_any": "add", "select_n": "select"}
MADE = frozenset("fma fms fnma select copy round_even".split())
# what the operations do to truth values, which have all bits set or none
OF_TRUTHS = {name: name for name in ("and", "or", "xor", "not", "select")}
OF_TRUTHS |= {"ne": "xor", "eq": "xnor", "max": "or", "min": "and"}
# along a row, in the order of src/reduce.h
FOLDS = "sum", "max", "min", "mul"
OF_NONE = {"sum": 0.0, "max": -math.inf, "min": math.inf, "mul": 1.0}
FOLDED = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min"}
FOLDED |= {"reduce_prod": "mul", "reduce_and": "min", "reduce_or": "max"}
# what leaves the values of rows as they are
IDLE = frozenset("copy copy_p stop_gradient optimization_barrier reshard".split())


class Unknown(Exception):
    """The kernel cannot run this; says why."""


class Tracer:
    """Evaluates equations on rows: all axes but the last are rows, not looked at.

    What has one number for each row, and no axis of its own for it, is a value of
    width 1, which an axis of any other size tells from a row.
    """

    def __init__(
        self, graph: Graph, dtype: Any, sums: dict[Any, Any], product: Any, fold: Any
    ):
        self.graph, self.dtype, self.product = graph, dtype, product
        self.sums = sums  # of variables that a sum takes the place of: what it is
        # (name, value, width): a row of one number, of all elements of the value; or
        # None where the kernel cannot
        self.fold = fold

    def evaluate(self, jaxpr: Any, args: list[Value], consts: Any = ()) -> list[Value]:
        if consts:
            raise Unknown("a function in the update closes over an array")
        env = dict(zip(jaxpr.invars, args, strict=True))

        def read(v: Any) -> Value:
            return self.literal(v) if type(v) is Literal else env[v]

        for e in jaxpr.eqns:
            out = self.equation(e, [read(v) for v in e.invars])
            env.update(zip(e.outvars, out, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def literal(self, v: Any) -> Value:
        if v.aval.shape != ():
            raise Unknown(f"the update has a constant of shape {v.aval.shape}")
        return self.number(v.val)

    def number(self, x: Any) -> Value:
        x = x.item() if hasattr(x, "item") else x
        if isinstance(x, bool):
            zero = self.graph.constant(0.0, 1)
            return self.graph.operate("eq" if x else "ne", zero, zero)
        return self.graph.constant(float(x), 1)

    def equation(self, e: Any, args: list[Value]) -> list[Value]:
        name, p = e.primitive.name, e.params
        if e.primitive is product_p:
            return [self.product(p["k"], self.row(e, args[0]))]
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
        if name in ("split", "slice", "concatenate", "pad"):
            return self.cut(e, args)
        if name in ("broadcast_in_dim", "reshape", "squeeze", "expand_dims"):
            return [self.widened(e, args[0])]
        if name == "convert_element_type":
            return [self.converted(e, args[0])]
        if name in FOLDED:
            return [self.folded(e, args[0])]
        return [self.pointwise(e, self.even(e, args))]

    def even(self, e: Any, args: list[Value]) -> list[Value]:
        """Operands of one width."""
        if not args:
            raise Unknown(f"the kernel has no {e.primitive.name}")
        shape = e.outvars[0].aval.shape
        width = shape[-1] if shape else 1
        for v, a in zip(e.invars, args, strict=True):
            if v.aval.shape == shape and not self.graph.is_uniform(a):
                width = width_of(a)
        for v, a in zip(e.invars, args, strict=True):
            # else an axis over rows stands where the other has the elements of one
            same = width_of(a) == width or self.graph.is_uniform(a)
            self.require(same or v.aval.shape[-1:] in ((), (1,)), e)
        return [self.wide(a, width) for a in args]

    def wide(self, a: Value, width: int) -> Value:
        """A number, or what is the same everywhere, for each element of a row."""
        if width_of(a) == width:
            return a
        if self.graph.is_uniform(a):
            return [a[0]._replace(length=width)]
        return self.reduce("sum", a, width)

    def reduce(self, name: str, a: Value, width: int) -> Value:
        if self.fold is None:
            raise Unknown(f"the kernel has no {name} over a row here")
        return self.fold(FOLDS.index(name), a, width)

    def pointwise(self, e: Any, args: list[Value]) -> Value:
        name, p, graph = e.primitive.name, e.params, self.graph
        number = lambda x: graph.constant(x, width_of(args[0]))
        if name in ("integer_pow", "square"):
            return self.power(args[0], p.get("y", 2))
        if name == "one_minus_square":
            factors = [graph.operate(op, number(1.0), args[0]) for op in ("add", "sub")]
            return graph.operate("mul", *factors)
        if name == "clamp":
            low, x, high = args
            return graph.operate("min", graph.operate("max", x, low), high)
        if name == "rsqrt":
            return graph.operate("div", number(1.0), graph.operate("sqrt", args[0]))
        if name == "is_finite":
            rest = graph.operate("sub", args[0], args[0])
            return graph.operate("eq", rest, number(0.0))
        if name not in SAME or (name in MADE and name != "select_n"):
            raise Unknown(f"the kernel has no {name}")
        dtypes = [v.aval.dtype for v in e.invars]
        truth = [dtype == jnp.dtype(bool) for dtype in dtypes]
        if len(args) > 3 or (name == "select_n" and not truth[0]):
            raise Unknown("the update selects one of several")
        for v in (*e.invars, *e.outvars):
            if v.aval.dtype not in (self.dtype, jnp.dtype(bool)):
                raise Unknown(f"{name} has {v.aval.dtype}")
        if p.get("accuracy") is not None:
            raise Unknown(f"{name} is asked for with an accuracy")
        op = SAME[name]
        if truth[-1]:
            if op not in OF_TRUTHS:
                raise Unknown(f"the kernel has no {name} of bool")
            op = OF_TRUTHS[op]
            if op == "xnor":
                return graph.operate("not", graph.operate("xor", *args))
        if name == "round" and p["rounding_method"] == RoundingMethod.TO_NEAREST_EVEN:
            op = "round_even"
        return graph.operate(op, *args)

    def folded(self, e: Any, a: Value) -> Value:
        """Over all elements of a row."""
        name, shape = e.primitive.name, e.invars[0].aval.shape
        self.require(tuple(e.params["axes"]) == (len(shape) - 1,), e)
        a, truth = self.row(e, a), e.invars[0].aval.dtype == jnp.dtype(bool)
        self.require(truth == (name in ("reduce_and", "reduce_or")), e)
        if truth:
            self.require(bool(a), e)
            return self.as_truth(self.reduce(FOLDED[name], self.as_number(a), 1))
        if e.invars[0].aval.dtype != self.dtype:
            raise Unknown(f"{name} has {e.invars[0].aval.dtype}")
        if not a:
            return self.graph.constant(OF_NONE[FOLDED[name]], 1)
        return self.reduce(FOLDED[name], a, 1)

    def as_number(self, a: Value) -> Value:
        """1 where it is true, else 0."""
        number = lambda x: self.graph.constant(x, width_of(a))
        return self.graph.operate("select", a, number(0.0), number(1.0))

    def as_truth(self, a: Value) -> Value:
        return self.graph.operate("ne", a, self.graph.constant(0.0, width_of(a)))

    def row(self, e: Any, a: Value, i: int = 0) -> Value:
        """An operand whose last axis has the elements of a row."""
        shape = e.invars[i].aval.shape
        if shape and self.graph.is_uniform(a):
            return self.wide(a, shape[-1])
        self.require(bool(shape) and width_of(a) == shape[-1], e)
        return a

    def cut(self, e: Any, args: list[Value]) -> list[Value]:
        name, p, graph = e.primitive.name, e.params, self.graph
        shape = e.invars[0].aval.shape
        last = len(shape) - 1
        operands = args[:1] if name == "pad" else args
        args[: len(operands)] = [self.row(e, a, i) for i, a in enumerate(operands)]
        if name == "split":
            self.require(p["axis"] == last, e)
            out, at = [], 0
            for size in map(int, p["sizes"]):
                out.append(graph.slice(args[0], at, at + size))
                at += size
            return out
        if name == "concatenate":
            self.require(p["dimension"] == last, e)
            return [[piece for a in args for piece in a]]
        if name == "slice":
            starts, limits = p["start_indices"], p["limit_indices"]
            strides = p["strides"] or (1,) * len(shape)
            whole = all(a == 0 for a in starts[:-1]) and limits[:-1] == shape[:-1]
            self.require(whole and set(strides) == {1}, e)
            return [graph.slice(args[0], starts[-1], limits[-1])]
        *others, (low, high, inner) = p["padding_config"]
        none = all(tuple(a) == (0, 0, 0) for a in others)
        self.require(none and inner == 0 and low >= 0 and high >= 0, e)
        fill = lambda n: self.wide(args[1], n) if n else []
        return [[*fill(low), *args[0], *fill(high)]]

    def widened(self, e: Any, a: Value) -> Value:
        """What has more axes in front, or one element for all of a row."""
        old, new = e.invars[0].aval.shape, e.outvars[0].aval.shape
        width = new[-1] if new else 1
        if self.graph.is_uniform(a):
            return self.wide(a, width)
        if e.primitive.name != "broadcast_in_dim":
            # rows stay in order; what has one number a row is taken as any axes
            self.require(width_of(a) == 1 or (bool(new) and old[-1:] == new[-1:]), e)
            return a
        axes = tuple(e.params["broadcast_dimensions"])
        if math.prod(old) == 1:  # the same for all rows
            return self.wide(a, width)
        if axes == tuple(range(len(old))) and new[:-1] == old and width_of(a) == 1:
            return self.wide(a, width)
        a = self.row(e, a)
        self.require(axes[-1] == len(new) - 1, e)
        return self.wide(a, width)

    def converted(self, e: Any, a: Value) -> Value:
        old, new = e.invars[0].aval.dtype, e.outvars[0].aval.dtype
        numbers = [self.graph.number(p.node) for p in a]
        if old == new or (new == self.dtype and None not in numbers):
            return a
        if old == self.dtype and new == jnp.dtype(bool):
            return self.as_truth(a)
        self.require(old == jnp.dtype(bool) and new == self.dtype, e)
        return self.as_number(a)

    def require(self, ok: bool, e: Any) -> None:
        if not ok:
            old, new = (v.aval.str_short() for v in (e.invars[0], e.outvars[0]))
            raise Unknown(f"the kernel has no {e.primitive.name} of {old} to {new}")

    def power(self, a: Value, y: int) -> Value:
        graph = self.graph
        if y == 0:
            return graph.constant(1.0, width_of(a))
        if y < 0:
            one = graph.constant(1.0, width_of(a))
            return graph.operate("div", one, self.power(a, -y))
        if y == 1:
            return a
        half = self.power(a, y // 2)
        square = graph.operate("mul", half, half)
        return graph.operate("mul", square, a) if y % 2 else square


CALLS = frozenset(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call remat2"
    " checkpoint".split()
)
