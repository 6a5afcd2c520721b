"""The tangents of a recurrence: a linear map L of those of its inputs, and Lᵀ.

L is a plain scan. Its transpose is the backward pass of the platform.

The tangents of matrices reach a step in sums with products over all steps. The
transposes of those sums are the few large products that give the gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._engine.extras import is_total, summed_part
from jaxseq._engine.linear import with_transpose
from jaxseq._engine.plain import plain
from jaxseq._engine.primitive import as_params, spec_of
from jaxseq._engine.products import project
from jaxseq._engine.run import backward
from jaxseq._engine.step import Step
from jaxseq._engine.steps import reads
from jaxseq._engine.sums import Factors, Sum, Terms, gradients, tangent_of
from jaxseq._engine.types import Gradients, Inputs, Saved, Spec, Weights, as_written


class Known(NamedTuple):
    """What L depends on."""

    weights: Weights
    inputs: Inputs  # x is zero in steps that are not valid
    saved: Saved
    factors: tuple[Factors, ...]  # of the products, then of the input maps


class Moving(NamedTuple):
    """What L is linear in."""

    terms: tuple[Terms, ...]  # of the products, then of the input maps
    passed: tuple[Any, ...]  # inputs that are their own maps; None for others
    extra: tuple[Any, ...]
    state: tuple[Any, ...]
    start: tuple[Any, ...] | None


def tangents_of(
    spec: Spec, known: Known, b: Moving, out: tuple[Any, Any], precisions: Any
) -> Any:
    """Those of the state and the outputs, which are `out`, with the transpose Lᵀ."""
    options = {**as_params(spec), "precisions": precisions}
    return with_transpose(_map, _transpose, known, b, floats(out), **options)


def _map(known: Known, b: Moving, *, precisions: Any, **params: Any) -> Any:
    """L b."""
    spec = spec_of(params)
    with as_written(spec):
        return _by_scan(spec, known, b, precisions)


def _by_scan(spec: Spec, known: Known, b: Moving, precisions: Any) -> Any:
    weights, inputs, saved, factors = known
    z_x = project(spec.step, weights, inputs.x)
    sums = map(Sum, factors, b.terms, precisions)
    d = [
        None if a is None else tangent_of(spec, a, s, s.terms)
        for a, s in zip((*saved.z, *floats(z_x)), sums, strict=True)
    ]
    n = len(saved.z)
    shifts, own = tuple(d[:n]), zip(d[n:], b.passed, strict=True)
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


def _transpose(
    known: Known, like: Moving, d: Any, *, precisions: Any, **params: Any
) -> Moving:
    """Lᵀ d, of gradients of the state and of the outputs."""
    spec = spec_of(params)
    with as_written(spec):
        return _back(spec, known, like, d, precisions)


def _back(spec: Spec, known: Known, like: Moving, d: Any, precisions: Any) -> Moving:
    weights, inputs, saved, factors = known
    passed = tuple(
        a if w is None and k is None else None
        for a, w, k in zip(inputs.x, weights.w_x, spec.step.sums, strict=True)
    )
    d = backward(spec, weights, passed, saved, inputs.masks, *d)
    own = tuple(
        None if x is None else d_z for x, d_z in zip(like.passed, d.z_x, strict=True)
    )
    sums = map(Sum, factors, like.terms, precisions)
    every = zip(sums, (*d.z, *d.z_x), _totals(spec.step), strict=True)
    found = [gradients(spec, *each) for each in every]
    terms, totals = zip(*found, strict=True)
    d_extra = _summed(spec, weights, d, totals)
    return Moving(terms, own, d_extra, d.state, d.start)


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
