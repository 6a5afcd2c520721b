"""Products of a body with what is the same at every step, as products of matrices.

Products that read the same value become one. The product of a concatenation becomes a
sum of products, one for each of its parts. Transposes that undo each other, with only
pointwise operations between them, are removed.
"""

import math
from typing import Any, NamedTuple

from jax import Array, lax
from jax.extend.core import JaxprEqn, Primitive

from jaxseq._base.dtypes import is_float
from jaxseq._engine.update import width_out
from jaxseq._scan.kinds import Kind, kinds_of
from jaxseq._scan.program import Program, as_written, read, run, traced_again
from jaxseq._scan.transposes import Turned, carried

# `a` (..., I) times `w`, a matrix (I, O) or N blocks (N, I / N, O / N)
times_p = Primitive("jaxseq_times")


@times_p.def_abstract_eval
def _(a: Any, w: Any, *, precision: Any) -> Any:
    return a.update(shape=(*a.shape[:-1], width_out(w)), weak_type=False)


class Sides(NamedTuple):
    """A product of a value that varies and one that is fixed, and their axes."""

    x: Any
    w: Any
    contract_x: tuple[int, ...]
    contract_w: tuple[int, ...]
    batch_x: tuple[int, ...]
    batch_w: tuple[int, ...]
    swapped: bool  # whether `w` is the left factor
    precision: Any


def normalised(program: Program, n_fixed: int, n_state: int) -> Program:
    """The same program, with `times_p` for its products with fixed factors."""
    of = kinds_of(program, n_fixed, n_state)
    made = {v: e for e in program.eqns for v in e.outvars}
    sides: dict[Any, Sides] = {}
    groups: dict[Any, list[Any]] = {}
    for e in program.eqns:
        if s := _sides(e, of):
            (z,) = e.outvars
            sides[z] = s
            groups.setdefault(_group(z, s), []).append(z)

    def split(x: Any, axis: int) -> list[Any]:
        """The parts of `x`, if concatenated along `axis` from unlike kinds, or `x`."""
        e = made.get(x)
        if e is None or _name(e) != "concatenate" or e.params["dimension"] != axis:
            return [x]
        return list(e.invars) if len({of(v) for v in e.invars}) > 1 else [x]

    def products(env: Any, group: list[Any]) -> dict[Any, Turned]:
        """The products of a group, each with axes (free of x, batch, free of w)."""
        s = sides[group[0]]
        ws = {z: read(env, sides[z].w) for z in group}
        whole, at = None, 0
        one = len(s.contract_x) == 1
        xs = split(s.x, s.contract_x[0]) if one else [s.x]
        for x in xs:
            value = read(env, x)
            size = value.shape[s.contract_x[0]] if one else None
            matrices = []
            for z, w in ws.items():
                if size is not None:
                    axis = sides[z].contract_w[0]
                    w = lax.slice_in_dim(w, at, at + size, axis=axis)
                matrices.append(_matrix(w, sides[z]))
            w = matrices[0] if len(group) == 1 else lax.concatenate(matrices, 1)
            rows = _rows(value, s)
            e = made.get(x)
            if e is not None and _name(e) == "reshape":  # moved there and back
                before = read(env, e.invars[0])
                order = _order(s, value.ndim)
                if before.shape == rows.shape and order == tuple(range(value.ndim)):
                    rows = before
            part = times_p.bind(rows, w, precision=s.precision)
            whole, at = part if whole is None else whole + part, at + (size or 0)
        assert whole is not None
        widths = [_width(sides[z], w) for z, w in ws.items()]
        pieces = [whole]
        if len(group) > 1:
            pieces = lax.split(whole, widths, axis=whole.ndim - 1)
        found = {
            z: _unpacked(piece, sides[z], w)
            for piece, (z, w) in zip(pieces, ws.items(), strict=True)
        }
        return found

    def again(*args: Any) -> list[Any]:
        env = dict(zip(program.ins, args, strict=True))
        fixed = [e for e in program.eqns if of(e) == Kind.FIXED]
        run(fixed, env)
        turned: dict[Any, Turned] = {}
        done: dict[Any, Turned] = {}
        for e in program.eqns:
            if of(e) == Kind.FIXED:
                continue
            if e.outvars[0] in sides:
                (z,) = e.outvars
                if z not in done:
                    with as_written(e):
                        done |= products(env, groups[_group(z, sides[z])])
                results = [done[z]]
            else:
                results = carried(e, turned)
            if results is None:
                run([e], env)
                continue
            for out, result in zip(e.outvars, results, strict=True):
                value, order = result
                if order == tuple(range(len(order))):
                    env[out] = value
                else:
                    env[out], turned[out] = lax.transpose(value, order), result
        return [read(env, v) for v in program.outs]

    return traced_again(again, program)


def _name(e: JaxprEqn) -> str:
    return e.primitive.name


def _sides(e: JaxprEqn, of: Any) -> Sides | None:
    """The sides of a product with a fixed factor, if all three have one dtype."""
    if _name(e) != "dot_general":
        return None
    contract, batch = e.params["dimension_numbers"]
    x, w = e.invars
    if Kind.FIXED not in (of(x), of(w)) or of(x) == of(w):
        return None
    dtypes = {v.aval.dtype for v in (x, w, e.outvars[0])}  # pyright: ignore
    if len(dtypes) > 1 or not is_float(w.aval):  # pyright: ignore
        return None
    if e.params.get("out_sharding") is not None:
        return None
    i = int(of(x) == Kind.FIXED)
    both = [tuple(map(tuple, pair)) for pair in (contract, batch)]
    (c_x, c_w), (b_x, b_w) = (pair[::-1] if i else pair for pair in both)
    if i:
        x, w = w, x
    precision = e.params["precision"]
    if isinstance(precision, tuple) and precision[0] != precision[1]:
        return None
    precision = precision[0] if isinstance(precision, tuple) else precision
    return Sides(x, w, c_x, c_w, b_x, b_w, bool(i), precision)


def _group(z: Any, s: Sides) -> Any:
    """A key that is the same for products that become one.

    They read the same value in the same way. A product with blocks stays alone.
    """
    return z if s.batch_x else (s.x, s.contract_x, str(s.precision))


def _free(rank: int, *axes: tuple[int, ...]) -> list[int]:
    return [i for i in range(rank) if all(i not in some for some in axes)]


def _order(s: Sides, rank: int) -> tuple[int, ...]:
    """The axes of `x`: free, of the batch, contracted."""
    free = _free(rank, s.contract_x, s.batch_x)
    return (*free, *s.batch_x, *s.contract_x)


def _rows(x: Array, s: Sides) -> Array:
    """`x` as (free..., I)."""
    order = _order(s, x.ndim)
    n = x.ndim - len(s.batch_x) - len(s.contract_x)
    if order != tuple(range(x.ndim)):
        x = lax.transpose(x, order)
    return x.reshape(*x.shape[:n], math.prod(x.shape[n:]))


def _matrix(w: Array, s: Sides) -> Array:
    """`w` as (I, O), or as N blocks (N, I / N, O / N)."""
    free = _free(w.ndim, s.contract_w, s.batch_w)
    order = (*s.batch_w, *s.contract_w, *free)
    if order != tuple(range(w.ndim)):
        w = lax.transpose(w, order)
    size = lambda low, high: math.prod(w.shape[low:high])
    n, m = len(s.batch_w), len(s.batch_w) + len(s.contract_w)
    blocks = (size(0, n),) if n else ()
    return w.reshape(*blocks, size(n, m), size(m, w.ndim))


def _width(s: Sides, w: Any) -> int:
    return math.prod(w.shape[i] for i in _free(w.ndim, s.contract_w))


def _unpacked(z: Any, s: Sides, w: Array) -> Turned:
    """A product `(free..., O)`, and the order that `dot_general` gives it."""
    free = z.shape[:-1]
    batch = tuple(w.shape[i] for i in s.batch_w)
    more = tuple(w.shape[i] for i in _free(w.ndim, s.contract_w, s.batch_w))
    z = z.reshape(*free, *batch, *more)
    n, m, k = len(free), len(batch), len(more)
    of_x, of_b, of_w = range(n), range(n, n + m), range(n + m, n + m + k)
    order = (*of_b, *of_w, *of_x) if s.swapped else (*of_b, *of_x, *of_w)
    return Turned(z, order)
