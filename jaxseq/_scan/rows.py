"""A body on half the rows of its arrays, if no row depends on another.

Rows are the first axis of the state, of x_t and of the outputs. The equations of the
body are followed, and written anew for fewer rows; what mixes rows, or is not known to
keep them apart, ends that.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import Array, lax
from jax.export import is_symbolic_dim
from jax.extend.core import Literal

from jaxseq._scan.program import CALLS, Program, bound, program_of

POINTWISE = frozenset(
    "abs add add_any and atan2 cbrt ceil clamp convert_element_type copy cos div eq erf"
    " erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt"
    " max min mul ne neg nextafter not or pow rem round rsqrt select_n sign sin sqrt"
    " square stop_gradient sub tan tanh xor".split()
)
REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod"
    " reduce_sum".split()
)


class _Mixed(Exception):
    """Rows are mixed, or may be."""


def of_half(program: Program, n_fixed: int) -> Program | None:
    """The program for arrays of half the rows, if it gives these rows the same."""
    variables = program.ins[n_fixed:]
    sizes: set[Any] = {v.aval.shape[:1] for v in variables}  # pyright: ignore
    if len(sizes) != 1 or sizes == {()}:
        return None
    ((rows,),) = sizes
    if is_symbolic_dim(rows) or rows % 2:
        return None

    def aval(v: Any, moves: bool) -> Any:
        shape = (rows // 2, *v.aval.shape[1:]) if moves else v.aval.shape
        return jax.ShapeDtypeStruct(shape, v.aval.dtype)

    def again(*args: Any) -> list[Any]:
        on = _Rows(rows)
        for v, a in zip(program.ins, args, strict=True):
            on.put(v, a)
        on.axis.update(dict.fromkeys(variables, 0))
        on.run(program.eqns)
        if any(on.place(v) != 0 for v in program.outs):
            raise _Mixed
        return [on.read(v) for v in program.outs]

    moves = [False] * n_fixed + [True] * len(variables)
    try:
        closed = jax.make_jaxpr(again)(*map(aval, program.ins, moves))
    except _Mixed:
        return None
    return None if closed.consts else program_of(closed.jaxpr)


class _Rows:
    """Values on half the rows, and where these lie."""

    def __init__(self, rows: int):
        self.rows, self.half = rows, rows // 2
        self.value: dict[Any, Any] = {}
        self.axis: dict[Any, int] = {}  # of the rows, where there are some
        # of values without rows, the axes along which they are all the same
        self.alike: dict[Any, frozenset[int]] = {}

    def read(self, v: Any) -> Any:
        return v.val if type(v) is Literal else self.value[v]

    def place(self, v: Any) -> int | None:
        return self.axis.get(_key(v))

    def put(self, v: Any, a: Any, like: Any = None) -> None:
        """Gives a variable its value, and the rows of another."""
        self.value[v] = a
        self.alike[v] = self.alike.get(_key(like), frozenset())
        self.axis.pop(v, None)
        if (place := self.place(like)) is not None:
            self.axis[v] = place

    def run(self, eqns: Sequence[Any]) -> None:
        for e in eqns:
            moving = [v for v in e.invars if self.place(v) is not None]
            if moving and e.primitive.name in CALLS | {"custom_jvp_call"}:
                self.call(e)
            elif moving:
                self.step(e)
            else:
                for v, a in zip(e.outvars, bound(e, self.values(e)), strict=True):
                    self.put(v, a)
                if e.primitive.name == "broadcast_in_dim":
                    new = set(range(len(e.params["shape"])))
                    new -= set(e.params["broadcast_dimensions"])
                    self.alike[e.outvars[0]] = frozenset(new)

    def values(self, e: Any) -> list[Any]:
        return [self.read(v) for v in e.invars]

    def call(self, e: Any) -> None:
        """A function in the body, without the derivative that it may have."""
        inner: Any = e.params.get("call_jaxpr", e.params.get("jaxpr"))
        jaxpr = getattr(inner, "jaxpr", inner)
        for v, a in zip(jaxpr.constvars, getattr(inner, "consts", ()), strict=True):
            self.put(v, a)
        for v, given in zip(jaxpr.invars, e.invars, strict=True):
            self.put(v, self.read(given), given)
        self.run(jaxpr.eqns)
        for v, made in zip(e.outvars, jaxpr.outvars, strict=True):
            self.put(v, self.read(made), made)

    def step(self, e: Any) -> None:
        rule = _RULES.get(e.primitive.name)
        if rule is None:
            raise _Mixed
        place, params = rule(self, e)
        values = []
        for v, a in zip(e.invars, self.values(e), strict=True):
            alike = self.place(v) is None and place in self.alike.get(_key(v), ())
            if alike and a.shape[place] == self.rows:
                a = lax.slice_in_dim(a, 0, self.half, axis=place)
            values.append(a)
        new = bound(e.replace(params={**e.params, **params}), values)
        for v, a in zip(e.outvars, new, strict=True):
            self.put(v, a)
            self.axis[v] = place


Rule = tuple[int, dict[str, Any]]  # where the rows of the results lie; new parameters


def _key(v: Any) -> Any:
    return None if type(v) is Literal else v


def _one(on: _Rows, e: Any) -> int:
    place = on.place(e.invars[0])
    if place is None:
        raise _Mixed
    return place


def _off(i: int, axes: Any) -> int:
    """The place of the rows, if it is none of these."""
    if i in axes:
        raise _Mixed
    return i


def _with(sizes: Sequence[int], i: int, n: int) -> tuple[int, ...]:
    return (*sizes[:i], n, *sizes[i + 1 :])


def _pointwise(on: _Rows, e: Any) -> Rule:
    places = {i for v in e.invars if (i := on.place(v)) is not None}
    if len(places) > 1:
        raise _Mixed
    (i,) = places
    for v in e.invars:
        shape = v.aval.shape
        fits = not shape or shape[i] == 1 or i in on.alike.get(_key(v), ())
        if on.place(v) is None and not fits:
            raise _Mixed
    return i, {}


def _concatenate(on: _Rows, e: Any) -> Rule:
    i, _ = _pointwise(on, e)
    if any(v.aval.shape[i] != on.rows for v in e.invars):
        raise _Mixed
    return _off(i, {e.params["dimension"]}), {}


def _slice(on: _Rows, e: Any) -> Rule:
    i, p = _one(on, e), e.params
    bounds = p["start_indices"][i], p["limit_indices"][i]
    if bounds != (0, on.rows) or (p["strides"] and p["strides"][i] != 1):
        raise _Mixed
    return i, {"limit_indices": _with(p["limit_indices"], i, on.half)}


def _reshape(on: _Rows, e: Any) -> Rule:
    i, p = _one(on, e), e.params
    before = e.invars[0].aval.shape[: i + 1]
    if p["dimensions"] is not None or before != tuple(p["new_sizes"][: i + 1]):
        raise _Mixed
    return i, {"new_sizes": _with(p["new_sizes"], i, on.half)}


def _broadcast(on: _Rows, e: Any) -> Rule:
    p = e.params
    i = p["broadcast_dimensions"][_one(on, e)]
    if p["shape"][i] != on.rows or len(e.invars) > 1:
        raise _Mixed
    return i, {"shape": _with(p["shape"], i, on.half)}


def _reduced(on: _Rows, e: Any) -> Rule:
    i, axes = _one(on, e), e.params["axes"]
    return _off(i, axes) - sum(a < i for a in axes), {}


def _squeezed(on: _Rows, e: Any) -> Rule:
    i, axes = _one(on, e), e.params["dimensions"]
    return _off(i, axes) - sum(a < i for a in axes), {}


def _dot(on: _Rows, e: Any) -> Rule:
    contract, batch = e.params["dimension_numbers"]
    places = [on.place(v) for v in e.invars]
    if None not in places:
        pairs = list(zip(*batch, strict=True))
        if tuple(places) not in pairs:
            raise _Mixed
        return pairs.index(tuple(places)), {}
    side = 0 if places[0] is not None else 1
    i: Any = places[side]
    taken = {*contract[side], *batch[side]}
    free = [n for n in range(len(e.invars[side].aval.shape)) if n not in taken]
    before = len(batch[0])
    if side:
        rank = len(e.invars[0].aval.shape)
        before = rank - len(contract[0])
    return before + free.index(_off(i, taken)), {}


_RULES: dict[str, Any] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(REDUCTIONS, _reduced),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dot_general": _dot,
    "reshape": _reshape,
    "slice": _slice,
    "split": lambda on, e: (_off(_one(on, e), {e.params["axis"]}), {}),
    "squeeze": _squeezed,
    "transpose": lambda on, e: (e.params["permutation"].index(_one(on, e)), {}),
}


def split_rows(a: Array, axis: int) -> Array:
    """Two halves of the rows, along a new axis in front of theirs."""
    n = a.shape[axis]
    return a.reshape(*a.shape[:axis], 2, n // 2, *a.shape[axis + 1 :])


def merge_rows(a: Array, axis: int) -> Array:
    n = math.prod(a.shape[axis : axis + 2])
    return a.reshape(*a.shape[:axis], n, *a.shape[axis + 2 :])
