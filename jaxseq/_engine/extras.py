"""Gradients of a step's own weights that lie in those of its products and inputs.

That of a bias is the sum of what reaches the product it is added to. Found on the
pulled back step, such gradients are taken from the others after the loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

LINEAR = frozenset("reduce_sum reshape squeeze transpose neg".split())


class Part(NamedTuple):
    """A gradient that lies in the i-th of those of the products, then input maps."""

    i: int
    offset: int  # along the last axis
    width: int
    summed: int  # how many of its axes in front are summed too
    moves: Callable[[Array], Any] | None  # from that piece, if it is not the piece


def part_of(d: Any, wholes: Any, jaxpr: Jaxpr) -> Part | None:
    """Where the gradient `d` lies in others, if it is a part of one."""
    if d is None or type(d) is Literal:
        return None
    makers: dict[Any, JaxprEqn] = {v: e for e in jaxpr.eqns for v in e.outvars}
    moves: list[JaxprEqn] = []
    v = d
    while True:
        if (place := _place(v, wholes, makers)) is not None:
            break
        e = makers.get(v)
        if e is None or e.primitive.name not in LINEAR or len(e.invars) != 1:
            return None
        moves.append(e)
        v = e.invars[0]
    f, summed = None, 0
    if moves and (summed := _sums_in_front(moves[-1])):
        v = moves.pop().outvars[0]
    if moves:
        inner = jaxpr.replace(constvars=[], invars=[v], outvars=[d], eqns=moves[::-1])
        f = jaxpr_as_fun(ClosedJaxpr(inner, ()))
    return Part(*place, summed, f)


def _sums_in_front(e: JaxprEqn) -> int:
    """Over how many axes in front of the last an equation sums, and over no other."""
    axes = e.params["axes"] if e.primitive.name == "reduce_sum" else ()
    n, rank = len(axes), len(e.invars[0].aval.shape)  # pyright: ignore
    return n if n < rank and tuple(sorted(axes)) == tuple(range(n)) else 0


def _place(v: Any, wholes: Any, makers: Any) -> tuple[int, int, int] | None:
    if not v.aval.shape:
        return None
    width = v.aval.shape[-1]
    for i, whole in enumerate(wholes):
        if type(whole) is Literal:  # zero
            continue
        maker = makers.get(whole)
        if v is whole or _joins_the_same(makers.get(v), maker):
            return i, 0, width
        if maker is None or maker.primitive.name != "concatenate":
            continue
        if maker.params["dimension"] != whole.aval.ndim - 1:
            continue
        offset = 0
        for piece in maker.invars:
            if piece is v:
                return i, offset, width
            offset += piece.aval.shape[-1]
    return None


def _joins_the_same(a: JaxprEqn | None, b: JaxprEqn | None) -> bool:
    if a is None or b is None:
        return False
    alike = a.primitive is b.primitive and a.params == b.params
    return alike and a.primitive.name == "concatenate" and a.invars == b.invars


def is_total(part: Part, ndim: int) -> bool:
    """Whether it is summed over all but the last of the `ndim` axes of a step."""
    return part.summed == ndim - 1


def summed_part(part: Part, whole: Array, total: Array | None, ndim: int) -> Array:
    """The gradient, summed over all steps; the piece of one has `ndim` axes.

    `total` is `whole` summed over all axes but the last, if that is known.
    """
    # all of it, for several parts of one are summed at once; over time alone it took
    # 15 times as long on a CPU
    if total is None or not is_total(part, ndim):
        total = whole.sum(tuple(range(whole.ndim - ndim + part.summed)))
    d = total[..., part.offset : part.offset + part.width]
    return d if part.moves is None else part.moves(d)[0]
