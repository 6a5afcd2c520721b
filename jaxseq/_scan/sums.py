"""Which products and values of x_t are read by their sum only."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import JaxprEqn, Literal

MOVES = frozenset("slice split reshape squeeze transpose broadcast_in_dim".split())


def sums_of(
    eqns: Sequence[JaxprEqn], products: list[Any], hoisted: list[Any], outs: Any
) -> dict[Any, Any]:
    """For products the hoisted value that each is added to, and nothing else reads.

    Both may go through the same moves, slices say, before they are added, and other
    values may be added to either on the way.
    """
    root = {v: v for v in (*products, *hoisted)}  # of a value that went such a way
    path: dict[Any, tuple[Any, ...]] = {v: () for v in root}
    spoilt: set[Any] = set()
    pairs: dict[Any, set[Any]] = {v: set() for v in root}
    own = set(products)
    for e in eqns:
        some = [v for v in e.invars if type(v) is not Literal and v in root]
        if not some:
            continue
        name, out = e.primitive.name, e.outvars[0]
        atoms: Any = [*some, out]
        alike = len({v.aval.shape for v in atoms}) == 1
        if out in own:
            spoilt |= {root[v] for v in some}
        elif name in MOVES and len(e.invars) == 1:
            for i, o in enumerate(e.outvars):
                root[o] = root[some[0]]
                path[o] = (*path[some[0]], (name, i, str(e.params)))
        elif name == "add" and len(some) == 1 and alike:
            root[out], path[out] = root[some[0]], path[some[0]]
        elif name == "add" and alike and path[some[0]] == path[some[1]]:
            a, b = (root[v] for v in some)
            pairs[a].add(b)
            pairs[b].add(a)
        else:
            spoilt |= {root[v] for v in some}
    spoilt |= {root[v] for v in outs if type(v) is not Literal and v in root}
    found = {}
    for z in products:
        if len(pairs[z]) == 1:
            (x,) = pairs[z]
            same = (z.aval.shape, z.aval.dtype) == (x.aval.shape, x.aval.dtype)
            alone = pairs[x] == {z} and x not in own and not {x, z} & spoilt
            if same and alone:
                found[z] = x
    return found
