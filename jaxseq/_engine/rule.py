"""The recurrence with its derivatives, on the fastest path of the platform.

Forward mode, reverse mode and all orders of both come from one rule. The tangents of
a recurrence are a linear map L of those of its inputs, b ↦ (state, y): a plain scan,
for forward mode and for derivatives of the derivative. Its transpose Lᵀ is the
backward pass of the platform.

The tangents of matrices reach a step in sums with products over all steps. The
transposes of those sums are the few large products that give the gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters.ad import Zero, primitive_jvps

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._base.masks import select
from jaxseq._engine.extras import is_total, summed_part
from jaxseq._engine.linear import with_transpose
from jaxseq._engine.plain import plain
from jaxseq._engine.primitive import bind, run_p, spec_of
from jaxseq._engine.products import project, round_to
from jaxseq._engine.recall import complete, is_recalled, left_by, only_recalled, told_by
from jaxseq._engine.run import backward, forward
from jaxseq._engine.step import Step
from jaxseq._engine.steps import reads
from jaxseq._engine.sums import Terms, gradients, sums_of, tangent_of
from jaxseq._engine.types import (
    Gradients,
    Inputs,
    Spec,
    Weights,
    as_written,
    to_batch_first,
    to_time_first,
)


class Moving(NamedTuple):
    """What L is linear in."""

    terms: tuple[Terms, ...]  # of the products, then of the input maps
    passed: tuple[Any, ...]  # inputs that are their own maps; None for others
    extra: tuple[Any, ...]
    state: tuple[Any, ...]
    start: tuple[Any, ...] | None


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
    x = select(inputs.masks.valid, inputs.x)
    z_x = project(step, weights, x)
    told = told_by(spec, ys, inputs)
    full = complete(spec, saved, told)
    rest = iter(others)
    lefts: list[Any] = []
    for i in range(len(step.called)):
        if is_recalled(spec, i):
            lefts.append(round_to(next(rest), spec.dtype))
        else:
            lefts.append(left_by(spec, i, told))
    d_x = d_inputs.x
    sums, maps = sums_of(spec, weights, x, lefts, d_weights, d_x)
    passed = tuple(
        instantiate(z, d) if w is None else None
        for z, w, d in zip(floats(z_x), weights.w_x, d_x, strict=True)
    )
    d_extra = tuple(map(instantiate, floats(weights.extra), d_weights.extra))
    d_state = tuple(map(instantiate, floats(inputs.state), d_inputs.state))
    d_start = None
    if inputs.start is not None:
        d_start = tuple(map(instantiate, floats(inputs.start), d_inputs.start))
    terms = tuple(s.terms for s in (*sums, *maps))
    b = Moving(terms, passed, d_extra, d_state, d_start)

    def tangent(b: Moving) -> Any:
        every = zip((*saved.z, *floats(z_x)), (*sums, *maps), b.terms, strict=True)
        d = [
            None if a is None else tangent_of(spec, a, s, terms)
            for a, s, terms in every
        ]
        shifts, own = tuple(d[: len(sums)]), zip(d[len(sums) :], b.passed, strict=True)
        d_z_x = tuple(d if passed is None else passed for d, passed in own)

        def run(some: Any, shifts: Any, extra: Any, state: Any, start: Any) -> Any:
            given = weights._replace(
                w_x=(None,) * len(z_x), b=(None,) * len(z_x),
                extra=with_floats(extra, weights.extra),
            )  # fmt: skip
            state = with_floats(state, inputs.state)
            start = with_floats(start, inputs.start)
            now = Inputs(with_floats(some, z_x), state, start, inputs.masks)
            return floats(plain(spec, given, now, shifts)[:2])

        still = jax.tree.map(jnp.zeros_like, shifts)
        at = floats((z_x, weights.extra, inputs.state, inputs.start))
        moving = d_z_x, shifts, b.extra, b.state, b.start
        return jax.jvp(run, (at[0], still, *at[1:]), moving)[1]

    def transpose(d_end: Any, d_ys: Any) -> Moving:
        passed = tuple(
            a if w is None and k is None else None
            for a, w, k in zip(z_x, weights.w_x, step.sums, strict=True)
        )
        d = backward(spec, weights, passed, full, inputs.masks, d_end, d_ys)
        own = tuple(
            None if z is None else d_z for z, d_z in zip(b.passed, d.z_x, strict=True)
        )
        every = zip((*sums, *maps), (*d.z, *d.z_x), _totals(step), strict=True)
        found = [gradients(spec, *each) for each in every]
        terms, totals = zip(*found, strict=True)
        d_extra = _summed(spec, weights, d, totals)
        return Moving(terms, own, d_extra, d.state, d.start)

    constants = z_x, weights, inputs.state, inputs.start, x, lefts
    moved = floats((end, ys))
    d_end, d_ys = with_transpose(tangent, transpose, constants, b, moved)
    if not spec.save:
        return (end, ys, None, None), (d_end, d_ys, None, None)
    # only `transpose` reads what was saved, and it is never differentiated
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


def _totals(step: Step) -> list[bool]:
    """Of each product and input map, whether the sum of its gradients is asked for."""
    like, parts = (*step.z, *step.z_x), reads(step).parts
    is_asked = lambda part: is_total(part, len(like[part.i].shape))
    asked = {part.i for part in parts if part is not None and is_asked(part)}
    return [i in asked for i in range(len(like))]


def _summed(
    spec: Spec, weights: Weights, d: Gradients, totals: Sequence[Array | None]
) -> tuple[Array | None, ...]:
    """Gradients of `extra`, summed over time and rows where they are not yet."""
    like, wholes = (*spec.step.z, *spec.step.z_x), (*d.z, *d.z_x)

    def one(a: Array, given: Any, part: Any) -> Array | None:
        if part is not None:
            i = part.i
            return summed_part(part, wholes[i], totals[i], len(like[i].shape))
        if given is None or a.ndim >= 2:
            return given
        return given.sum(tuple(range(given.ndim - a.ndim)))

    parts = weights.extra, d.extra, reads(spec.step).parts
    return tuple(one(*each) for each in zip(*parts, strict=True))


def instantiate(primal: Array | None, tangent: Any) -> Array | None:
    if primal is None:
        return None
    zero = isinstance(tangent, Zero)
    return jnp.zeros_like(primal) if zero else tangent


def instantiated(primals: Any, tangents: Any) -> Any:
    """Tangents of those that are not None, with zeros for symbolic ones."""
    return jax.tree.map(instantiate, primals, tangents, is_leaf=lambda a: a is None)
