"""What becomes of elements along axes of a row: sums, and where the largest is."""

import math
from functools import partial
from typing import Any

from jaxseq._kernels.cpu.columns import Value, width_of
from jaxseq._kernels.cpu.elements import (
    Unknown,
    as_number,
    is_computed_in,
    is_integer_in,
    is_truth,
)
from jaxseq._kernels.cpu.joins import side_by_side
from jaxseq._kernels.cpu.moves import View, spread, whole

# along a row, in the order of src/fold.h, and the same of two numbers
FOLDS = "sum", "max", "min", "mul", "iadd", "imax", "imin", "imul"
OF_NONE = {"sum": 0.0, "max": -math.inf, "min": math.inf, "mul": 1.0}
FOLDED = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min"}
FOLDED |= {"reduce_prod": "mul", "reduce_and": "min", "reduce_or": "max"}
OF_INTEGERS = {"sum": "iadd", "max": "imax", "min": "imin", "mul": "imul"}
PLACES = {"argmax": "max", "argmin": "min"}
RUNNING = {"cumsum": "sum", "cumprod": "mul", "cummax": "max", "cummin": "min"}
MOST_RUNNING = 32  # elements of which there are running sums: each is a column


def of_two(name: str) -> str:
    return "add" if name == "sum" else name


def folded(tracer: Any, e: Any, a: Any) -> Any:
    """Over some axes of a row."""
    n = len(tracer.lead) if a.rows else 0
    shape, axes = e.invars[0].aval.shape[n:], [i - n for i in e.params["axes"]]
    tracer.require(min(axes, default=0) >= 0, e)
    value = tracer.wide(a.value, math.prod(shape))
    return a._replace(value=_folded(tracer, e, value, shape, axes), partial=False)


def along(tracer: Any, e: Any, a: Any) -> Any:
    """Over one axis of a row, in its order."""
    n, p = len(tracer.lead) if a.rows else 0, e.params
    shape, name = e.invars[0].aval.shape[n:], e.primitive.name
    (axis,) = p["axes"] if name in PLACES else (p["axis"],)
    tracer.require(axis >= n and 0 not in shape, e)
    value = tracer.wide(a.value, math.prod(shape))
    of = _place if name in PLACES else _running
    return a._replace(value=of(tracer, e, value, shape, axis - n), partial=False)


def _folded(tracer: Any, e: Any, a: Value, shape: Any, axes: list[int]) -> Value:
    name, of, graph = e.primitive.name, e.invars[0].aval, tracer.graph
    tracer.require(is_truth(of) == (name in ("reduce_and", "reduce_or")), e)
    view, left = whole(shape), [i for i in range(len(shape)) if i not in axes]
    fold = partial(_fold, tracer, inner=view.over(axes), outer=view.over(left))
    if is_truth(of):
        found = fold(FOLDED[name], as_number(graph, a))
        # of no elements the largest is -inf
        return graph.operate("gt", found, graph.constant(0.0, width_of(found)))
    if of.dtype != tracer.dtype and not is_integer_in(tracer.dtype, of):
        raise Unknown(f"{name} has {of.dtype}")
    return _of_kind(tracer, of.dtype, FOLDED[name], a, fold)


def _of_kind(tracer: Any, dtype: Any, name: str, a: Value, f: Any) -> Value:
    """What a fold comes to, of floats or of integers."""
    if dtype == tracer.dtype:
        return f(name, a)
    integers, in_order = tracer.integers, name in ("max", "min")
    if in_order:
        a = integers.ordered(dtype, a)
    a = f(OF_INTEGERS[name], a)
    return integers.ordered(dtype, a) if in_order else integers.wrapped(dtype, a)


def _fold(tracer: Any, op: str, a: Value, inner: View, outer: View) -> Value:
    """Of the elements of `inner` one, for each element of `outer` as the first."""
    size, width = math.prod(inner.shape), math.prod(outer.shape)
    if not size:
        if op not in OF_NONE:
            raise Unknown("the kernel has no sum of no integers")
        return tracer.wide(tracer.graph.constant(OF_NONE[op], 1), width)
    lie_together = len(list(inner.runs())) == 1
    if size > 1 and (lie_together or width == 1):
        some = [tracer.take(a, inner._replace(first=i)) for i in outer.firsts()]
        return [piece for each in some for piece in tracer.reduce(op, each, 1)]
    total, *rest = (tracer.take(a, outer._replace(first=i)) for i in inner.firsts())
    for more in rest:
        total = tracer.graph.operate(of_two(op), total, more)
    return total


def _place(tracer: Any, e: Any, a: Value, shape: Any, axis: int) -> Value:
    """The number of the first element that is the largest or least, or NaN."""
    graph, of, view = tracer.graph, e.invars[0].aval, whole(shape)
    is_float = is_computed_in(tracer.dtype, of)
    tracer.require(is_float or is_integer_in(tracer.dtype, of), e)
    tracer.require(is_integer_in(tracer.dtype, e.outvars[0].aval), e)
    left = [i for i in range(len(shape)) if i != axis]
    fold = partial(_fold, tracer, inner=view.over([axis]), outer=view.over(left))
    dtype = tracer.dtype if is_float else of.dtype
    best = _of_kind(tracer, dtype, PLACES[e.primitive.name], a, fold)
    view = spread(whole(tuple(shape[i] for i in left)), shape, left)
    best = tracer.take(best, view)
    if is_float:
        same = graph.operate("eq", a, best)
        same = graph.operate("or", same, graph.operate("ne", a, a))
    else:
        same = graph.operate("ieq", a, best)
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    number = tracer.take(
        tracer.count(shape[axis]), spread(whole(tuple(ones)), shape, range(len(shape)))
    )
    number = graph.operate("int_of", number)
    end = tracer.integers.constant(shape[axis], math.prod(shape))
    return fold("imin", graph.operate("select", same, end, number))


def _running(tracer: Any, e: Any, a: Value, shape: Any, axis: int) -> Value:
    """The sums, products and so on of all elements up to each, along a short axis."""
    name, of = e.primitive.name, e.invars[0].aval
    n, reverse = shape[axis], e.params["reverse"]
    if n > MOST_RUNNING:
        raise Unknown(f"the kernel has no {name} of more than {MOST_RUNNING} elements")
    tracer.require(of.dtype == tracer.dtype or is_integer_in(tracer.dtype, of), e)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    view = whole(shape)

    def along(op: str, a: Value) -> Value:
        order = list(range(n))[:: -1 if reverse else 1]
        firsts = [view.first + i * view.strides[axis] for i in order]
        parts = [tracer.take(a, View(one, view.strides, i)) for i in firsts]
        found = parts[:1]
        for part in parts[1:]:
            found.append(tracer.graph.operate(of_two(op), found[-1], part))
        found = found[:: -1 if reverse else 1]
        return side_by_side(tracer.graph, found, [one] * n, axis)

    return _of_kind(tracer, of.dtype, RUNNING[name], a, along)
