"""The sums `Σ a w + b` that a step reads: their tangents, and gradients from theirs.

Both are products over all steps. A platform may have a faster way to the gradients.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching
from jax.interpreters.ad import Zero
from jax.sharding import AxisType

from jaxseq._engine import backends
from jaxseq._engine.lowering import register
from jaxseq._engine.mesh import NO_MESH, placing
from jaxseq._engine.products import times, times_by_block
from jaxseq._engine.recall import shifted
from jaxseq._engine.shapes import of_one_member
from jaxseq._engine.types import Before, Devices, Spec, Weights, as_written


class Factors(NamedTuple):
    """What tangents of a sum are multiplied by."""

    w: tuple[Array, ...]  # tangents of inputs
    x: tuple[Array, ...]  # tangents of matrices of input maps
    lefts: tuple[Any, ...]  # those of others: arrays, or `Before`


class Terms(NamedTuple):
    """Tangents that a tangent of a sum is linear in, those that are not zero."""

    x: tuple[Any, ...]
    w: tuple[Any, ...]  # of input maps, then others
    b: tuple[Any, ...]


class Sum(NamedTuple):
    factors: Factors
    terms: Terms
    precisions: tuple[tuple[Any, ...], tuple[Any, ...]]  # of the products of `factors`


def sums_of(
    spec: Spec, weights: Weights, x: Any, lefts: Any, d_weights: Weights, d_x: Any
) -> tuple[list[Sum], list[Sum]]:
    """Of each product that is called, and of each input map.

    A map that is read as a part of a product's sum is in that.
    """
    step, n = spec.step, len(spec.step.called)
    # factors, tangents and precisions of each kind of term, of each sum
    found: Any = [[[] for _ in range(4)] for _ in range(n + len(x))]

    def add(at: int, kind: int, *term: Any) -> None:
        if not isinstance(term[1], Zero) and term[1] is not None:
            found[at][kind].append(term)

    for i, w in enumerate(weights.w_x):
        k, how = step.sums[i], step.map_precisions[i]
        at = n + i if k is None else step.called.index(k)
        if w is not None:
            add(at, 0, w, d_x[i], how)
            add(at, 1, x[i], d_weights.w_x[i], how)
            add(at, 3, None, d_weights.b[i], None)
    for i, (k, a) in enumerate(zip(step.called, lefts, strict=True)):
        add(i, 2, a, d_weights.w_h[k], step.precisions[k])

    def one(kinds: Any) -> Sum:
        of = lambda i: [tuple(term[i] for term in kind) for kind in kinds]
        (w, x, lefts, _), (d_x, d_w, d_w_h, d_b), how = map(of, range(3))
        precisions = how[0], (*how[1], *how[2])
        return Sum(Factors(w, x, lefts), Terms(d_x, (*d_w, *d_w_h), d_b), precisions)

    sums = list(map(one, found))
    return sums[:n], sums[n:]


def tangent_of(spec: Spec, like: Any, s: Sum, terms: Terms) -> Array:
    """The tangent of a sum, linear in `terms`; zeros if there are none."""
    whole = lambda a: shifted(spec, a) if isinstance(a, Before) else a
    lefts = *s.factors.x, *map(whole, s.factors.lefts)
    inputs = zip(terms.x, s.factors.w, s.precisions[0], strict=True)
    others = zip(lefts, terms.w, s.precisions[1], strict=True)
    parts = [times(d, w, precision=how) for d, w, how in inputs]
    parts += [times_by_block(a, d, how) for a, d, how in others]
    parts += [jnp.broadcast_to(d, like.shape) for d in terms.b]
    return sum(parts, start=jnp.zeros(like.shape, like.dtype))


def gradients(spec: Spec, s: Sum, d: Any, total: bool) -> tuple[Terms, Array | None]:
    """Those of the terms of a sum, from that of the sum: the transpose.

    With `total` also `d` summed over all axes but the last, where that takes no pass of
    its own over `d`: it is the gradient of a bias.
    """
    added = total and bool(s.terms.w) and not s.terms.b
    if added:
        one = jnp.zeros_like(d, shape=d.shape[-1:])
        s = s._replace(terms=s.terms._replace(b=(one,)))
    terms = _gradients(spec, s, d)
    found = terms.b[0] if total and terms.b else None
    return terms._replace(b=()) if added else terms, found


def _gradients(spec: Spec, s: Sum, d: Any) -> Terms:
    if not jax.tree.leaves(s.terms):
        return s.terms
    types = getattr(jax.typeof(d).sharding.mesh, "axis_types", ())
    if any(t != AxisType.Manual for t in types):
        return _by_xla(spec, s, d)  # a sharded axis is not merged with others
    leaves, tree = jax.tree.flatten((s.factors, d))
    like, out = jax.tree.flatten(s.terms)
    shapes = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in like)
    spec = spec._replace(step=None)  # pyright: ignore
    params = {"spec": spec, "tree": tree, "out": out, "shapes": shapes, "members": ()}
    return out.unflatten(gradients_p.bind(*leaves, precisions=s.precisions, **params))


def _by_xla(spec: Spec, s: Sum, d: Array) -> Terms:
    return jax.linear_transpose(partial(tangent_of, spec, d, s), s.terms)(d)[0]


# A primitive, for which way is taken is decided when a program is lowered. It is part
# of a transpose, so it has no derivative.
gradients_p = Primitive("jaxseq_gradients")
gradients_p.multiple_results = True


@gradients_p.def_abstract_eval
def _(*avals: Any, shapes: Any, members: Any, **params: Any) -> list[Any]:
    placed, (_, lead) = placing(avals), of_one_member(avals, members)
    return [placed((*lead, *a.shape), a.dtype) for a in shapes]


def _run(platform: str, devices: Devices, params: Any, *leaves: Array) -> list[Array]:
    terms, spec = params["out"].unflatten(params["shapes"]), params["spec"]

    def one(*leaves: Array) -> list[Array]:
        factors, d = params["tree"].unflatten(leaves)
        found = backends.gradients(platform, devices, spec, factors, terms, d)
        if found is None:
            found = _by_xla(spec, Sum(factors, terms, params["precisions"]), d)
        return jax.tree.leaves(found)

    run: Any = one
    for axes in params["members"]:
        run = jax.vmap(run, axes)
    with jax.sharding.use_abstract_mesh(NO_MESH), as_written(spec):
        return run(*leaves)


def _batched(args: Any, dims: Any, *, members: Any, **params: Any) -> Any:
    members = (*members, tuple(dims))
    out = gradients_p.bind(*args, members=members, **params)
    return out, [0] * len(out)


batching.primitive_batchers[gradients_p] = _batched
register(gradients_p, _run)
