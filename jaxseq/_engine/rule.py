"""The recurrence with its derivatives, on the fastest path of the platform.

Forward mode, reverse mode and all orders of both come from one rule: the tangents of a
recurrence are a linear map of those of its inputs, see `tangents.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters.ad import Zero, primitive_jvps

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._base.masks import select
from jaxseq._engine.plain import plain
from jaxseq._engine.primitive import bind, run_p, spec_of
from jaxseq._engine.products import round_to
from jaxseq._engine.recall import complete, is_recalled, left_by, only_recalled, told_by
from jaxseq._engine.run import forward
from jaxseq._engine.sums import sums_of
from jaxseq._engine.tangents import Known, Moving, tangents_of
from jaxseq._engine.types import (
    Inputs,
    Spec,
    Weights,
    as_written,
    to_batch_first,
    to_time_first,
)


def recurrence(
    spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Runs over time: the state and the outputs."""
    return forward(spec, weights, inputs)[:2]


def _jvp(spec: Spec, primals: Any, tangents: Any) -> Any:
    if spec.batch_first:
        spec = spec._replace(batch_first=False, turned=True)
        out, d_out = _jvp(spec, *map(_turned, (primals, tangents)))
        (end, ys), (d_end, d_ys) = out[:2], d_out[:2]
        ys, d_ys = (tuple(map(to_batch_first, each)) for each in (ys, d_ys))
        return (end, ys, None, None), (d_end, d_ys, None, None)
    weights, inputs = primals
    d_weights, d_inputs = tangents
    step = spec.step
    out = forward(spec._replace(save=True), weights, inputs)
    end, ys, saved, others = out
    inputs = inputs._replace(x=select(inputs.masks.valid, inputs.x))
    told = told_by(spec, ys, inputs)
    rest = iter(others)
    lefts: list[Any] = []
    for i in range(len(step.called)):
        if is_recalled(spec, i):
            lefts.append(round_to(next(rest), spec.dtype))
        else:
            lefts.append(left_by(spec, i, told))
    sums, maps = sums_of(spec, weights, inputs.x, lefts, d_weights, d_inputs.x)
    sums = *sums, *maps
    passed = tuple(
        instantiate(x, d) if w is None else None
        for x, w, d in zip(floats(inputs.x), weights.w_x, d_inputs.x, strict=True)
    )
    moving = lambda a, d: tuple(map(instantiate, floats(a), d))
    start = inputs.start
    d_start = None if start is None else moving(start, d_inputs.start)
    b = Moving(
        tuple(s.terms for s in sums),
        passed,
        moving(weights.extra, d_weights.extra),
        moving(inputs.state, d_inputs.state),
        d_start,
    )
    full = complete(spec, saved, told)
    known = Known(weights, inputs, full, tuple(s.factors for s in sums))
    precisions = tuple(s.precisions for s in sums)
    d_end, d_ys = tangents_of(spec, known, b, (end, ys), precisions)
    if not spec.save:
        return (end, ys, None, None), (d_end, d_ys, None, None)
    # only the transpose reads what was saved, and it is never differentiated
    d_saved = floats(jax.tree.map(jnp.zeros_like, saved))
    return out, (d_end, d_ys, d_saved, _lefts_tangent(spec, primals, tangents))


def _turned(args: Any) -> Any:
    """Weights and inputs, or their tangents, with x turned to time first."""

    def one(a: Any) -> Any:
        if not isinstance(a, Zero):
            return to_time_first(a)
        return Zero(jax.eval_shape(to_time_first, a.aval))

    weights, inputs = args
    return weights, inputs._replace(x=tuple(map(one, inputs.x)))


def _lefts_tangent(spec: Spec, primals: Any, tangents: Any) -> tuple[Array, ...]:
    def lefts(moving: Any) -> tuple[Array, ...]:
        out = plain(spec, *with_floats(moving, primals))
        return only_recalled(spec, out.lefts)

    at = floats(primals)
    return jax.jvp(lefts, (at,), (instantiated(at, tangents),))[1]


def _run_jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    """The rule for leaves, as the primitive has them; of members, that of each."""
    tree, members = params["tree"], params["members"]
    assert params["kind"] == "forward"
    if members:
        *inner, axes = members
        moving = [i for i, d in enumerate(tangents) if not isinstance(d, Zero)]
        some = lambda leaves: [leaves[i] for i in moving]

        def one(leaves: Any, d: Any) -> Any:
            def run(*moved: Array) -> Any:
                whole = list(leaves)
                for i, a in zip(moving, moved, strict=True):
                    whole[i] = a
                return bind(whole, {**params, "members": tuple(inner)})

            return jax.jvp(run, some(leaves), d)

        return jax.vmap(one, (axes, some(axes)))(tuple(primals), some(tangents))
    spec = spec_of(params)
    with as_written(spec):
        out, d_out = _jvp(spec, tree.unflatten(primals), tree.unflatten(tangents))
    is_none = lambda a: a is None
    pairs = jax.tree.map(_with_zero, out, d_out, is_leaf=is_none)
    is_zero = lambda a: isinstance(a, Zero)
    return jax.tree.leaves(out), jax.tree.leaves(pairs, is_leaf=is_zero)


def _with_zero(a: Any, d: Any) -> Any:
    """The tangent of `a`: that of what is not float is zero."""
    if d is not None or a is None:
        return d
    kind: Any = jax.typeof(a)
    return Zero(kind.to_tangent_aval())


primitive_jvps[run_p] = _run_jvp


def instantiate(primal: Array | None, tangent: Any) -> Array | None:
    if primal is None:
        return None
    zero = isinstance(tangent, Zero)
    return jnp.zeros_like(primal) if zero else tangent


def instantiated(primals: Any, tangents: Any) -> Any:
    """Tangents of those that are not None, with zeros for symbolic ones."""
    return jax.tree.map(instantiate, primals, tangents, is_leaf=lambda a: a is None)
