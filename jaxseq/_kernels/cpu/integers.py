"""Integers: they lie in the lanes of floats as their bits.

A lane has 32 bits in a program of float32, and 64 in one of float64. An integer of
fewer bits is kept as the same number, so it is wrapped after what may leave its range.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxseq._kernels.cpu.columns import Graph, Value, width_of
from jaxseq._kernels.cpu.elements import Unknown, is_integer_in, is_truth

SIMPLE = {"add": "iadd", "add_any": "iadd", "sub": "isub", "mul": "imul"}
OF_BITS = frozenset("and or xor not".split())
COMPARED = frozenset("eq ne lt le gt ge".split())
ORDERED = {"max": "imax", "min": "imin"}
SHIFTS = {"shift_left": "shl", "shift_right_logical": "shr"}


def bits_of(dtype: Any) -> int:
    return 8 * jnp.dtype(dtype).itemsize


def in_lanes(a: Array, dtype: Any) -> Array:
    """An array for the kernel: truth values are numbers, and integers their bits."""
    if is_truth(a):
        return a.astype(dtype)
    if not jnp.issubdtype(a.dtype, jnp.integer):
        return a
    return lax.bitcast_convert_type(a.astype(_wide(a.dtype, dtype)), dtype)


def from_lanes(a: Array, dtype: Any) -> Array:
    """What the kernel gives, as an array of `dtype`."""
    if jnp.issubdtype(dtype, jnp.integer):
        a = lax.bitcast_convert_type(a, _wide(dtype, a.dtype))
    return a.astype(dtype)


def _wide(integer: Any, dtype: Any) -> Any:
    """Integers that fill the lanes of `dtype`."""
    kind = "int" if _is_signed(integer) else "uint"
    return jnp.dtype(f"{kind}{bits_of(dtype)}")


def _is_signed(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.signedinteger)


class Integers:
    """What is computed of integers, in the lanes of `dtype`."""

    def __init__(self, graph: Graph, dtype: Any):
        self.graph, self.dtype, self.lane = graph, dtype, bits_of(dtype)

    def constant(self, x: int, width: int) -> Value:
        """Made of numbers that the floats of the lanes have."""
        op, half = self.graph.operate, self.lane // 2
        x = (x + (1 << self.lane - 1)) % (1 << self.lane) - (1 << self.lane - 1)
        small = lambda n: op("int_of", self.graph.constant(float(n), width))
        if abs(x) <= 1 << jnp.finfo(self.dtype).nmant:
            return small(x)
        return op(
            "or", op("shl", small(x >> half), small(half)), small(x % (1 << half))
        )

    def wrapped(self, dtype: Any, a: Value) -> Value:
        rest = self.lane - bits_of(dtype)
        if not rest:
            return a
        by = self.constant(rest, width_of(a))
        back = "sar" if _is_signed(dtype) else "shr"
        return self.graph.operate(back, self.graph.operate("shl", a, by), by)

    def is_whole(self, dtype: Any) -> bool:
        """Whether it is unsigned and fills a lane, so that a lane is not its value."""
        return bits_of(dtype) == self.lane and not _is_signed(dtype)

    def ordered(self, dtype: Any, a: Value) -> Value:
        """In the order of integers with a sign; twice is as before."""
        if not self.is_whole(dtype):
            return a
        return self.graph.operate(
            "xor", a, self.constant(1 << self.lane - 1, width_of(a))
        )

    def of_float(self, dtype: Any, a: Value) -> Value:
        """Toward zero; what is out of range becomes the nearest that is not."""
        if bits_of(dtype) == self.lane:
            return self.graph.operate(
                "int_of" if _is_signed(dtype) else "unsigned_of", a
            )
        info = jnp.iinfo(dtype)
        for op, limit in ("max", info.min), ("min", info.max):
            a = self.graph.operate(
                op, a, self.graph.constant(float(limit), width_of(a))
            )
        return self.graph.operate("int_of", a)

    def as_float(self, dtype: Any, a: Value) -> Value:
        whole = self.is_whole(dtype)
        return self.graph.operate("number_of_unsigned" if whole else "number_of", a)

    def is_not_zero(self, a: Value) -> Value:
        zero = self.constant(0, width_of(a))
        return self.graph.operate("not", self.graph.operate("ieq", a, zero))

    def of_truth(self, a: Value) -> Value:
        return self.graph.operate("and", a, self.constant(1, width_of(a)))

    def pointwise(self, e: Any, args: list[Value]) -> Value:
        """What an equation of integers computes of each element."""
        name, p, op = e.primitive.name, e.params, self.graph.operate
        for v in (*e.invars, *e.outvars):
            if not (is_integer_in(self.dtype, v.aval) or is_truth(v.aval)):
                if name != "select_n":
                    raise Unknown(f"{name} has {v.aval.dtype}")
        dtype, x = e.invars[-1].aval.dtype, args[-1]
        number = lambda n: self.constant(n, width_of(x))
        wrapped = lambda a: self.wrapped(dtype, a)
        if name == "select_n":
            return self.selected(e, args)
        if name in SIMPLE:
            return wrapped(op(SIMPLE[name], *args))
        if name in OF_BITS:
            found = op(name, *args)
            return wrapped(found) if name == "not" else found
        if name in COMPARED:
            return self.compared(name, *(self.ordered(dtype, a) for a in args))
        if name in ORDERED:
            in_order = op(ORDERED[name], *(self.ordered(dtype, a) for a in args))
            return self.ordered(dtype, in_order)
        if name == "clamp":
            low, a, high = (self.ordered(dtype, a) for a in args)
            return self.ordered(dtype, op("imin", op("imax", a, low), high))
        if name in ("div", "rem"):
            return wrapped(op(f"{'u' if self.is_whole(dtype) else 'i'}{name}", *args))
        if name in SHIFTS:
            return self.shifted(SHIFTS[name], dtype, *args)
        if name == "shift_right_arithmetic":
            signed = jnp.dtype(f"int{bits_of(dtype)}")
            return wrapped(op("sar", self.wrapped(signed, args[0]), args[1]))
        if name == "neg":
            return wrapped(op("isub", number(0), x))
        if name == "abs":
            less = op("isub", number(0), x)
            return wrapped(op("imax", x, less)) if _is_signed(dtype) else x
        if name == "sign":
            one = self.of_truth(self.is_not_zero(x))
            if not _is_signed(dtype):
                return one
            return op("select", op("ilt", x, number(0)), one, number(-1))
        if name in ("integer_pow", "square"):
            return self.power(dtype, x, p.get("y", 2))
        raise Unknown(f"the kernel has no {name} of integers")

    def power(self, dtype: Any, a: Value, y: int) -> Value:
        if y < 2:
            return a if y else self.constant(1, width_of(a))
        half = self.power(dtype, a, y // 2)
        found = self.graph.operate("imul", half, half)
        found = self.graph.operate("imul", found, a) if y % 2 else found
        return self.wrapped(dtype, found)

    def compared(self, name: str, a: Value, b: Value) -> Value:
        op = self.graph.operate
        turn = lambda a: op("not", a)
        match name:
            case "eq":
                return op("ieq", a, b)
            case "ne":
                return turn(op("ieq", a, b))
            case "lt":
                return op("ilt", a, b)
            case "ge":
                return turn(op("ilt", a, b))
            case "gt":
                return op("ilt", b, a)
        return turn(op("ilt", b, a))

    def shifted(self, name: str, dtype: Any, a: Value, by: Value) -> Value:
        unsigned = jnp.dtype(f"uint{bits_of(dtype)}")
        a = self.wrapped(unsigned, a) if name == "shr" else a
        return self.wrapped(dtype, self.graph.operate(name, a, by))

    def selected(self, e: Any, args: list[Value]) -> Value:
        which, *cases = args
        if is_truth(e.invars[0].aval):
            return self.graph.operate("select", which, *cases)
        return self.chosen("ilt", which, cases)

    def chosen(self, how: str, which: Value, cases: list[Value]) -> Value:
        """One of several, by its number; the last one where there is no such case.

        With "ilt" it is the first one where the number is negative.
        """
        *others, found = cases
        for k, case in reversed(list(enumerate(others))):
            number = self.constant(k + (how == "ilt"), width_of(which))
            is_it = self.graph.operate(how, which, number)
            found = self.graph.operate("select", is_it, found, case)
        return found
