"""Moves transposes past the operations that follow, until another undoes them.

A product whose fixed factor is on the left comes out transposed. If the transpose were
not moved, it would run in the loop.
"""

from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn, Literal

from jaxseq._scan.program import bound

POINTWISE = frozenset({"add", "sub", "mul", "neg", "convert_element_type"})


class Turned(NamedTuple):
    """A value as the transpose of another."""

    value: Any
    permutation: tuple[int, ...]


def carried(e: JaxprEqn, turned: dict[Any, Turned]) -> list[Turned] | None:
    """The results of an equation of transposes, as transposes; None if they are not."""
    atoms = [None if type(v) is Literal else turned.get(v) for v in e.invars]
    sources = [t for t in atoms if t is not None]
    if not sources or len(sources) < len(atoms):
        return None
    (value, order), name = sources[0], e.primitive.name
    if name == "transpose":
        return [Turned(value, tuple(order[p] for p in e.params["permutation"]))]
    if name == "split":
        at = e.replace(params={**e.params, "axis": order[e.params["axis"]]})
        return [Turned(part, order) for part in bound(at, [value])]
    alike = {t.permutation for t in sources} == {order}
    if name in POINTWISE and alike and e.params.get("sharding") is None:
        return [Turned(a, order) for a in bound(e, [t.value for t in sources])]
    return None
