"""`lax.cond` and `lax.switch` as a choice between what all of their branches give."""

import math
from typing import Any

from jaxseq._kernels.cpu.elements import Unknown, is_held, is_truth

MOST_EQUATIONS = 100  # of all branches: all of them are computed


def branched(tracer: Any, e: Any, args: list[Any]) -> list[Any]:
    branches = e.params["branches"]
    if sum(size(b.jaxpr) for b in branches) > MOST_EQUATIONS:
        raise Unknown("the branches of a cond are long")
    which, *given = args
    found = [tracer.evaluate(b.jaxpr, given, b.consts) for b in branches]
    outs = zip(e.outvars, zip(*found, strict=True), strict=True)
    return [_one(tracer, e, v, which, cases) for v, cases in outs]


def _one(tracer: Any, e: Any, v: Any, which: Any, cases: Any) -> Any:
    shape, graph = v.aval.shape, tracer.graph
    tracer.require(is_held(tracer.dtype, v.aval), e)
    is_sum = any(a.partial for a in cases)
    if is_sum and not all(a.partial or tracer.is_zero(a.value) for a in cases):
        raise Unknown("a branch has a sum over rows, and another has none")
    rows = any(a.rows for a in cases)
    if rows:
        cases = [tracer.in_rows(shape, a) for a in cases]
    tracer.require(all(a.rows == rows for a in cases) and not which.partial, e)
    width = math.prod(tracer.inside(shape, rows))
    values = [tracer.wide(a.value, width) for a in cases]
    if is_truth(e.invars[0].aval):
        number = tracer.wide(which.value, width)
        value = graph.operate("select", number, *values)
    else:
        value = tracer.integers.chosen("ieq", tracer.wide(which.value, width), values)
    return cases[0]._replace(value=value, rows=rows, partial=is_sum)


def size(jaxpr: Any) -> int:
    """How many equations there are, with those of the functions that they call."""
    inner = [p for e in jaxpr.eqns for p in e.params.values()]
    inner = [q for p in inner for q in (p if isinstance(p, tuple) else (p,))]
    found = (getattr(p, "jaxpr", p) for p in inner)
    return len(jaxpr.eqns) + sum(size(p) for p in found if hasattr(p, "eqns"))
