"""Elements of another dtype, where the kernel has both."""

from typing import Any

from jaxseq._kernels.cpu.columns import Value
from jaxseq._kernels.cpu.elements import (
    as_number,
    as_truth,
    is_computed_in,
    is_integer_in,
    is_truth,
    rounded,
)


def converted(tracer: Any, e: Any, a: Value) -> Value:
    old, new = e.invars[0].aval, e.outvars[0].aval
    is_known = None not in [tracer.graph.number(p.node) for p in a]
    of, to = (is_computed_in(tracer.dtype, v) for v in (old, new))
    of_integer, to_integer = (is_integer_in(tracer.dtype, v) for v in (old, new))
    if old.dtype == new.dtype:
        return a
    if of_integer and to_integer:
        return tracer.integers.wrapped(new.dtype, a)
    if of_integer and to:
        return rounded(tracer.graph, new.dtype, tracer.integers.as_float(old.dtype, a))
    if of_integer and is_truth(new):
        return tracer.integers.is_not_zero(a)
    if of and to_integer:
        return tracer.integers.of_float(new.dtype, a)
    if is_truth(old) and to_integer:
        return tracer.integers.of_truth(a)
    if to and (of or is_known):
        return rounded(tracer.graph, new.dtype, a)
    if of and is_truth(new):
        return as_truth(tracer.graph, a)
    tracer.require(is_truth(old) and to, e)
    return as_number(tracer.graph, a)
