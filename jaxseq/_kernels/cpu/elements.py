"""What is computed of each element of a row by itself."""

from typing import Any

import jax.numpy as jnp
from jax.lax import RoundingMethod

from jaxseq._base.dtypes import FLOATS, state_dtype
from jaxseq._kernels.cpu.columns import HALVES, Graph, Value, width_of

# the instructions of src/ops.h, in its order
OPS = (
    "add sub mul div max min fma fms fnma rest rests neg abs sign exp expm1 log log1p"
    " tanh logistic sqrt copy eq ne lt le gt ge and or xor not select floor ceil round"
    " round_even rem pow cbrt exp2 sin cos tan asin acos atan atan2 sinh cosh asinh"
    " acosh atanh erf erfc bfloat16 float16"
    " iadd isub imul idiv irem udiv urem imax imin ieq ilt shl shr sar int_of"
    " unsigned_of number_of number_of_unsigned spread"
).split()
INTEGERS = frozenset("int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
SAME = {name: name for name in OPS[: OPS.index("iadd")]} | {
    "add_any": "add",
    "select_n": "select",
}
MADE = frozenset(
    "fma fms fnma rest rests select copy round_even bfloat16 float16".split()
)
# what the operations do to truth values, which have all bits set or none
OF_TRUTHS = {name: name for name in ("and", "or", "xor", "not", "select")}
OF_TRUTHS |= {"ne": "xor", "eq": "xnor", "max": "or", "min": "and"}


class Unknown(Exception):
    """The kernel cannot run this; says why."""


def is_computed_in(dtype: Any, a: Any) -> bool:
    """Whether the kernel computes with the elements of an array as with `dtype`."""
    return a.dtype.name in FLOATS and state_dtype(a.dtype) == dtype


def is_truth(a: Any) -> bool:
    return a.dtype == jnp.dtype(bool)


def is_integer_in(dtype: Any, a: Any) -> bool:
    """Whether a program of `dtype` has room for the integers of an array."""
    return a.dtype.name in INTEGERS and a.dtype.itemsize <= jnp.dtype(dtype).itemsize


def is_held(dtype: Any, a: Any) -> bool:
    """Whether a program of `dtype` can have an array."""
    return is_computed_in(dtype, a) or is_truth(a) or is_integer_in(dtype, a)


def rounded(graph: Graph, dtype: Any, a: Value) -> Value:
    """As numbers of `dtype`, if that has 16 bits."""
    name = jnp.dtype(dtype).name
    return graph.operate(name, a) if name in HALVES else a


def unrounded(graph: Graph, dtype: Any, a: Value) -> Value:
    """What is rounded to `dtype` where it is read, before that."""
    name = jnp.dtype(dtype).name
    nodes = [graph.nodes[p.node] for p in a]
    pairs = zip(a, nodes, strict=True)
    return [p._replace(node=n[1]) if n[0] == name else p for p, n in pairs]


def pointwise(graph: Graph, dtype: Any, e: Any, args: list[Value]) -> Value:
    """What an equation computes of each element of values of one width."""
    name, p = e.primitive.name, e.params
    number = lambda x: graph.constant(x, width_of(args[0]))
    if name in ("integer_pow", "square"):
        return power(graph, args[0], p.get("y", 2))
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
    if name == "reduce_precision":
        own = e.invars[0].aval.dtype
        bits, info = (p["exponent_bits"], p["mantissa_bits"]), jnp.finfo(own)
        if bits[0] >= info.nexp and bits[1] >= info.nmant:
            return rounded(graph, own, args[0])
        # with fewer exponents, what would be subnormal becomes zero
        if bits != (8, 7) or own != jnp.float32:
            raise Unknown(f"the kernel has no {name} of {own} to {bits}")
        return rounded(graph, jnp.bfloat16, args[0])
    if name not in SAME or (name in MADE and name != "select_n"):
        raise Unknown(f"the kernel has no {name}")
    truth = [is_truth(v.aval) for v in e.invars]
    if len(args) > 3 or (name == "select_n" and not truth[0]):
        raise Unknown("the update selects one of several")
    for v in (*e.invars, *e.outvars):
        if not is_computed_in(dtype, v.aval) and not is_truth(v.aval):
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


def as_number(graph: Graph, a: Value) -> Value:
    """1 where it is true, else 0."""
    number = lambda x: graph.constant(x, width_of(a))
    return graph.operate("select", a, number(0.0), number(1.0))


def as_truth(graph: Graph, a: Value) -> Value:
    return graph.operate("ne", a, graph.constant(0.0, width_of(a)))


def power(graph: Graph, a: Value, y: int) -> Value:
    if y == 0:
        return graph.constant(1.0, width_of(a))
    if y < 0:
        one = graph.constant(1.0, width_of(a))
        return graph.operate("div", one, power(graph, a, -y))
    if y == 1:
        return a
    half = power(graph, a, y // 2)
    square = graph.operate("mul", half, half)
    return graph.operate("mul", square, a) if y % 2 else square
