"""Whether a body does the same to each row of its arrays, and that on fewer rows.

Rows are the first axis of the state, of x_t and of the outputs. Where they depend on
nothing of each other, half of them are computed beside the other half.
"""

from typing import Any

from jax import Array
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxseq._scan.program import Program, program_of

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


def are_independent(program: Program, n_fixed: int) -> bool:
    """Whether no row of what a program gives depends on another row."""
    axis: dict[Any, int] = dict.fromkeys(program.ins[n_fixed:], 0)
    rows = {v.aval.shape[:1] for v in axis}
    if len(rows) != 1 or rows == {()}:
        return False
    try:
        _follow(program.eqns, axis, {})
    except _Mixed:
        return False
    return all(type(v) is not Literal and axis.get(v) == 0 for v in program.outs)


class _Mixed(Exception):
    """Rows are mixed, or may be."""


def _follow(
    eqns: list[JaxprEqn], axis: dict[Any, int], alike: dict[Any, set[int]]
) -> None:
    """Adds to `axis` where the rows of each result lie.

    `alike` tells of values without rows the axes along which they are all the same.
    """
    e: Any
    for e in eqns:
        name, p = e.primitive.name, e.params
        moving = [v for v in e.invars if type(v) is not Literal and v in axis]
        if not moving:
            if name == "broadcast_in_dim":
                kept, rank = p["broadcast_dimensions"], len(p["shape"])
                alike[e.outvars[0]] = set(range(rank)) - set(kept)
            continue
        if name == "custom_jvp_call":
            inner = p["call_jaxpr"].jaxpr
            pairs = list(zip(inner.invars, e.invars, strict=True))
            own = {i: axis[v] for i, v in pairs if type(v) is not Literal and v in axis}
            same = {
                i: alike[v] for i, v in pairs if type(v) is not Literal and v in alike
            }
            _follow(inner.eqns, own, same)
            for out, v in zip(e.outvars, inner.outvars, strict=True):
                if type(v) is Literal or v not in own:
                    raise _Mixed
                axis[out] = own[v]
            continue
        rule = _RULES.get(name)
        if rule is None:
            raise _Mixed
        out = rule(e, axis, alike)
        axis.update(dict.fromkeys(e.outvars, out))


def _pointwise(e: Any, axis: Any, alike: Any) -> int:
    places = {axis[v] for v in e.invars if type(v) is not Literal and v in axis}
    if len(places) > 1:
        raise _Mixed
    (i,) = places
    for v in e.invars:
        shape = v.aval.shape
        moves = type(v) is not Literal and v in axis
        if not moves and shape and shape[i] != 1 and i not in alike.get(v, ()):
            raise _Mixed
    return i


def _one(e: Any, axis: Any) -> int:
    return axis[e.invars[0]]


def _concatenate(e: Any, axis: Any, alike: Any) -> int:
    i = _pointwise(e, axis, alike)
    full = all(v.aval.shape[i] == e.outvars[0].aval.shape[i] for v in e.invars)
    return _off(i, {e.params["dimension"]} if full else {i})


def _off(i: int, axes: Any) -> int:
    """The place of the rows, if it is none of these."""
    if i in axes:
        raise _Mixed
    return i


def _slice(e: Any, axis: Any, _: Any) -> int:
    (v,), p, i = e.invars, e.params, _one(e, axis)
    bounds = p["start_indices"][i], p["limit_indices"][i]
    whole = bounds == (0, v.aval.shape[i]) and (p["strides"] or {i: 1})[i] == 1
    return _off(i, set() if whole else {i})


def _reshape(e: Any, axis: Any, _: Any) -> int:
    i, old, new = _one(e, axis), e.invars[0].aval.shape, e.outvars[0].aval.shape
    same = old[: i + 1] == new[: i + 1] and e.params.get("dimensions") is None
    return _off(i, set() if same else {i})


def _reduced(e: Any, axis: Any, _: Any) -> int:
    i, axes = _one(e, axis), e.params["axes"]
    return _off(i, axes) - sum(a < i for a in axes)


def _squeezed(e: Any, axis: Any, _: Any) -> int:
    i, axes = _one(e, axis), e.params["dimensions"]
    return _off(i, axes) - sum(a < i for a in axes)


def _broadcast(e: Any, axis: Any, _: Any) -> int:
    i = _one(e, axis)
    j = e.params["broadcast_dimensions"][i]
    same = e.params["shape"][j] == e.invars[0].aval.shape[i]
    return _off(j, set() if same and len(e.invars) == 1 else {j})


def _dot(e: Any, axis: Any, _: Any) -> int:
    contract, batch = e.params["dimension_numbers"]
    a, b = e.invars
    if type(a) is Literal or type(b) is Literal:
        raise _Mixed
    if a in axis and b in axis:
        pairs = list(zip(*batch, strict=True))
        pair = axis[a], axis[b]
        return pairs.index(pair) if pair in pairs else _off(0, {0})
    side = 0 if a in axis else 1
    v = e.invars[side]
    i, taken = axis[v], {*contract[side], *batch[side]}
    free = [n for n in range(v.aval.ndim) if n not in taken]
    before = len(batch[0])
    if side:
        rank = len(e.invars[0].aval.shape)
        before += rank - len(contract[0]) - len(batch[0])
    return before + free.index(_off(i, taken))


_RULES: dict[str, Any] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(REDUCTIONS, _reduced),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dot_general": _dot,
    "reshape": _reshape,
    "slice": _slice,
    "split": lambda e, axis, _: _off(_one(e, axis), {e.params["axis"]}),
    "squeeze": _squeezed,
    "transpose": lambda e, axis, _: e.params["permutation"].index(_one(e, axis)),
}


def are_alike(a: Program, b: Program, whole: int, rows: int) -> bool:
    """Whether `b` is `a` on arrays of `rows` rows in place of the `whole`."""
    if (len(a.eqns), len(a.ins)) != (len(b.eqns), len(b.ins)):
        return False
    names: dict[Any, Any] = dict(zip(a.ins, b.ins, strict=True))

    def same(x: Any, y: Any) -> bool:
        if isinstance(x, ClosedJaxpr) and isinstance(y, ClosedJaxpr):
            return are_alike(program_of(x.jaxpr), program_of(y.jaxpr), whole, rows)
        if isinstance(x, (tuple, list)) and type(x) is type(y):
            return len(x) == len(y) and all(map(same, x, y))
        return bool(x == y) or (x, y) == (whole, rows)

    def same_atom(x: Any, y: Any) -> bool:
        if type(x) is Literal or type(y) is Literal:
            return type(x) is type(y) and bool(x.val == y.val)
        return names.get(x) is y and same(x.aval.shape, y.aval.shape)

    for e, f in zip(a.eqns, b.eqns, strict=True):
        p, q = ({k: v for k, v in x.params.items() if not callable(v)} for x in (e, f))
        if e.primitive is not f.primitive or p.keys() != q.keys():
            return False
        if not all(same(p[k], q[k]) for k in p):
            return False
        if not all(map(same_atom, e.invars, f.invars)):
            return False
        names.update(zip(e.outvars, f.outvars, strict=True))
    return all(map(same_atom, a.outs, b.outs))


def in_halves(a: Array, axis: int) -> Array:
    """Two halves of the rows along an axis in front of that of the rows."""
    n = a.shape[axis]
    return a.reshape(*a.shape[:axis], 2, n // 2, *a.shape[axis + 1 :])


def joined(a: Array, axis: int) -> Array:
    n = a.shape[axis + 1]
    return a.reshape(*a.shape[:axis], 2 * n, *a.shape[axis + 2 :])
