"""Values side by side along an axis of a row, and with a number around them."""

import math
from typing import Any

from jaxseq._kernels.cpu.columns import Graph, Value
from jaxseq._kernels.cpu.elements import Unknown
from jaxseq._kernels.cpu.moves import View, whole


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
