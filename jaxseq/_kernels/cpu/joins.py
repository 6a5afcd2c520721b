"""Values side by side along an axis of a row, and with a number around them."""

import math
from typing import Any

from jaxseq._kernels.cpu.columns import Graph, Value
from jaxseq._kernels.cpu.elements import Unknown, is_computed_in, is_integer_in
from jaxseq._kernels.cpu.moves import View, whole


def joined(tracer: Any, e: Any, args: Any) -> Any:
    """Several along an axis, or one with a number around it."""
    name, shapes = e.primitive.name, [v.aval.shape for v in e.invars]
    rows, values = tracer.alike(e, args, shapes)
    n = len(tracer.lead) if rows else 0
    insides = [s[n:] for s in shapes]
    sizes = map(math.prod, insides)
    values = [tracer.wide(a, m) for a, m in zip(values, sizes, strict=True)]
    if name != "pad":
        axis = e.params["axis" if name == "stack" else "dimension"] - n
        tracer.require(axis >= 0, e)
        if name == "stack":
            insides = [(*s[:axis], 1, *s[axis:]) for s in insides]
        value = side_by_side(tracer.graph, values, insides, axis)
        return args[0]._replace(value=value, rows=rows, partial=False)
    around = e.params["padding_config"]
    tracer.require(not any(map(any, around[:n])), e)
    value, shape = values[0], insides[0]
    for axis, sizes in enumerate(around[n:]):
        value, shape = padded(tracer, value, shape, axis, sizes, values[1])
    return args[0]._replace(value=value, rows=rows, partial=False)


def counted(tracer: Any, e: Any) -> tuple[Value, bool]:
    """The number of each element along an axis of a row, and whether it has rows."""
    of, axis, n = e.outvars[0].aval, e.params["dimension"], len(tracer.lead)
    is_integer = is_integer_in(tracer.dtype, of)
    if 0 in of.shape or not (is_integer or is_computed_in(tracer.dtype, of)):
        raise Unknown(f"the kernel has no iota of {of.str_short()}")
    rows = n > 0 and axis >= n and of.shape[:n] == tracer.lead
    shape, value = tracer.of_one_row(rows, of.shape), tracer.count(of.shape[axis])
    strides = tuple(int(i == axis) for i in range(len(shape)))
    value = tracer.graph.operate("int_of", value) if is_integer else value
    return tracer.take(value, View(shape, strides, 0)), rows


def padded(
    tracer: Any, a: Value, shape: Any, axis: int, sizes: Any, fill: Value
) -> Any:
    """With a number before, after, and between its elements along an axis."""
    low, high, inner = sizes
    strides, n = whole(shape).strides, shape[axis]
    one = lambda k: (*shape[:axis], k, *shape[axis + 1 :])
    part = lambda i, k: (tracer.take(a, View(one(k), strides, i * strides[axis])), k)
    more = lambda k: (tracer.wide(fill, math.prod(one(k))), k)
    first, last = max(0, -low), n - max(0, -high)
    parts = [part(first, max(0, last - first))]
    if inner:
        if min(low, high) < 0:
            raise Unknown("the kernel has no pad that cuts what it spreads")
        parts = [p for i in range(n) for p in (more(inner), part(i, 1))][1:]
    parts = [more(max(0, low)), *parts, more(max(0, high))]
    shapes = [one(k) for _, k in parts]
    value = side_by_side(tracer.graph, [p for p, _ in parts], shapes, axis)
    return value, one(sum(k for _, k in parts))


def side_by_side(graph: Graph, values: Any, shapes: Any, axis: int) -> Value:
    found: Value = []
    sizes = [math.prod(s[axis:]) for s in shapes]
    for i in range(math.prod(shapes[0][:axis])):
        for value, size in zip(values, sizes, strict=True):
            found += graph.slice(value, i * size, (i + 1) * size)
    return found
