"""What `scan` makes of a body, in words."""

import re
from pathlib import PurePath
from typing import Any

from jax.extend.core import JaxprEqn
from jax.extend.source_info_util import summarize

from jaxseq._base.check import check_callable
from jaxseq._base.dtypes import is_float
from jaxseq._engine.steps import reads
from jaxseq._scan.analysis import Body, Plans, given, planned
from jaxseq._scan.plan import Plan
from jaxseq._scan.products import times_p


def explain(body: Body, init: Any, xs: Any = None, length: int | None = None) -> str:
    """What `jaxseq.scan` does with a body, a line for each thing, with its source.

    Args:
        body: as of `jaxseq.scan`.
        init: the first state.
        xs: inputs of all steps.
        length: the number of steps; that of `xs` if None.

    Returns:
        Lines that say which products run for many steps at a time, which run in the
        loop, and where the gradients of weights are summed; or why the body is left
        to `jax.lax.scan`.

    Raises:
        ValueError: if an argument is of a wrong kind.

    Example:
        >>> def body(h, x_t):
        ...     return 0.9 * h + x_t, h
        >>> print(jaxseq.explain(body, jnp.zeros(8), jnp.ones((20, 8))))
        run by lax.scan: no product with a fixed matrix reads the state
    """
    check_callable(body, "body")
    found = given(body, init, xs, length)
    plans = found if isinstance(found, str) else planned(found)
    if isinstance(plans, str):
        return f"run by lax.scan: {plans}"
    return _described(plans)


def _described(plans: Plans) -> str:
    plan, step = plans.derivatives, plans.derivatives.step
    made = {v: e for e in plan.program.eqns for v in e.outvars}
    loop = [e for e in plan.loop if e.primitive is times_p]
    n = len(loop)
    its = "its gradient" if n == 1 else "their gradients"
    lines = [f"{_count(n)} in the loop, {its} after it"]
    for k, e in enumerate(loop):
        kept = "kept in a sum with an input" if k in step.sums else "kept"
        lines.append(f"  {_product(e)}, {kept}{_where(e)}")
    early = [*plan.early, *(made[v] for v in plan.maps if v in made)]
    of_inputs = [e for e in early if e.primitive is times_p]
    if of_inputs:
        lines.append("products for many steps at a time")
        lines += [f"  {_product(e)}{_where(e)}" for e in of_inputs]
    parts = reads(step).parts
    for v, part in zip(plan.extra, parts, strict=True):
        if part is None and is_float(v.aval):
            lines.append(f"summed in the loop: the gradient of {_shape(v)}")
    kept = [a for a, yes in zip(step.state, reads(step).state, strict=True) if yes]
    if kept:
        shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in kept)
        lines.append(f"read by the gradient of the state before each step: {shapes}")
    if not isinstance(plans.value, Plan):
        lines.append("without a gradient: run by lax.scan, which is as fast")
    elif plans.value.halves:
        lines.append("without a gradient: on a CPU, the rows in two halves")
    elif plans.value is not plan:
        merged = sum(e.primitive is times_p for e in plans.value.loop)
        lines.append(f"without a gradient: {_count(merged)} in the loop")
    return "\n".join(lines)


def _count(n: int) -> str:
    return "1 product" if n == 1 else f"{n} products"


def _product(e: JaxprEqn) -> str:
    a, w = e.invars
    return f"{_shape(a)} times {_shape(w)}"


def _shape(v: Any) -> str:
    return f"{v.aval.dtype}{list(v.aval.shape)}"


def _where(e: JaxprEqn) -> str:
    """Its line, such as `linen/linear.py:287 (Dense.__call__)`."""
    source = "/".join(PurePath(summarize(e.source_info)).parts[-2:])
    return ": " + re.sub(r":(\d+):\d+ ", r":\1 ", source)
