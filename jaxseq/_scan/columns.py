"""Which columns of a product a value consists of.

A product with `w` may be sliced, split, reshaped or transposed before it is used; here
these are called moves. What comes out is the product with some of the columns of `w`.
"""

import itertools
import math
from typing import Any, NamedTuple

from jax import Array, lax
from jax.extend.core import JaxprEqn

from jaxseq._scan.program import bound

# (size, stride): `size` columns that lie `stride` apart
Run = tuple[int, int]


class Columns(NamedTuple):
    """Columns of a product (rows..., O), as a value (rows..., sizes...)."""

    rows: tuple[Any, ...]
    offset: int
    axes: tuple[tuple[Run, ...], ...]  # after the rows; of each its runs, outer first

    @property
    def runs(self) -> list[Run]:
        return _joined([run for axis in self.axes for run in axis])

    def indices(self) -> list[int]:
        steps = [range(0, n * s, s) for n, s in self.runs]
        return [self.offset + sum(i) for i in itertools.product(*steps)]


def all_columns(shape: tuple[Any, ...]) -> Columns:
    return Columns(shape[:-1], 0, (((shape[-1], 1),),))


def moved(e: JaxprEqn, c: Columns) -> list[Columns] | None:
    """The columns that each output of a move has; None if they cannot be said."""
    find = _MOVES.get(e.primitive.name)
    if find is None or len(e.invars) != 1:
        return None
    found = [each for each in find(e, c) or [None] if each is not None]
    return found if len(found) == len(e.outvars) else None


def move(e: JaxprEqn, a: Array, rows: int) -> list[Array]:
    """Makes a move on `a`, whose first `rows` axes may have other sizes than in `e`."""
    p, name, front = e.params, e.primitive.name, a.shape[:rows]
    if name == "reshape":
        return [lax.reshape(a, (*front, *p["new_sizes"][rows:]))]
    if name == "slice":
        low, high = (p[key][rows:] for key in ("start_indices", "limit_indices"))
        return [lax.slice(a, (*(0 for _ in front), *low), (*front, *high))]
    return list(bound(e, [a]))


def _reshape(e: JaxprEqn, c: Columns) -> list[Columns | None] | None:
    shape = e.outvars[0].aval.shape  # pyright: ignore
    n = len(c.rows)
    if e.params.get("dimensions") is not None or tuple(shape[:n]) != tuple(c.rows):
        return None
    runs, axes = [run for axis in c.axes for run in axis][::-1], []
    for size in reversed(shape[n:]):
        axis: list[Run] = []
        while size > 1:
            while runs and runs[0][0] == 1:
                runs.pop(0)
            count, stride = runs[0]
            part = math.gcd(count, size)
            if part not in (count, size):
                return None
            axis.insert(0, (part, stride))
            runs[0] = (count // part, stride * part)
            size //= part
        axes.insert(0, tuple(axis))
    return [c._replace(axes=tuple(axes))]


def _transpose(e: JaxprEqn, c: Columns) -> list[Columns | None] | None:
    order, n = e.params["permutation"], len(c.rows)
    if tuple(order[:n]) != tuple(range(n)):
        return None
    return [c._replace(axes=tuple(c.axes[i - n] for i in order[n:]))]


def _split(e: JaxprEqn, c: Columns) -> list[Columns | None] | None:
    at, found = 0, []
    for size in e.params["sizes"]:
        found.append(_cut(c, e.params["axis"] - len(c.rows), at, size))
        at += size
    return found


def _slice(e: JaxprEqn, c: Columns) -> list[Columns | None] | None:
    whole = e.invars[0].aval.shape  # pyright: ignore
    p, n = e.params, len(c.rows)
    if any(step != 1 for step in p["strides"] or ()):
        return None
    bounds = list(zip(p["start_indices"], p["limit_indices"], strict=True))
    if any(b != (0, size) for b, size in zip(bounds[:n], whole, strict=False)):
        return None
    found: Columns | None = c
    for i, (low, high) in enumerate(bounds[n:]):
        if found is not None and (low, high) != (0, whole[n + i]):
            found = _cut(found, i, low, high - low)
    return [found]


def _squeeze(e: JaxprEqn, c: Columns) -> list[Columns | None] | None:
    gone = {i - len(c.rows) for i in e.params["dimensions"]}
    if min(gone, default=0) < 0:
        return None
    axes = tuple(axis for i, axis in enumerate(c.axes) if i not in gone)
    return [c._replace(axes=axes)]


def _cut(c: Columns, axis: int, low: int, size: int) -> Columns | None:
    """The `size` entries of an axis from `low` on; None if they split a run."""
    if axis < 0:
        return None
    (count, stride), *inner = c.axes[axis] or ((1, 1),)
    unit = math.prod(n for n, _ in inner)
    if low % unit or size % unit or count * unit < low + size:
        return None
    axes = list(c.axes)
    axes[axis] = ((size // unit, stride), *inner)
    return Columns(c.rows, c.offset + low // unit * stride, tuple(axes))


_MOVES = {
    "reshape": _reshape,
    "transpose": _transpose,
    "split": _split,
    "slice": _slice,
    "squeeze": _squeeze,
}


def _joined(runs: list[Run]) -> list[Run]:
    """The same columns, in as few runs as possible."""
    found: list[Run] = []
    for n, s in runs:
        if n == 1:
            continue
        if found and found[-1][1] == n * s:
            found[-1] = (found[-1][0] * n, s)
        else:
            found.append((n, s))
    return found or [(1, 1)]


def is_picked(w: Any, c: Columns) -> bool:
    """Whether `picked` can make the matrix of these columns."""
    runs = sorted(c.runs, key=lambda run: -run[1])
    if len(w.shape) == 2:
        inner = [n * s for n, s in runs[1:]] + [1]
        return [s for _, s in runs] == inner
    return len(w.shape) == 3 and (_is_whole(w, c) or _gates(w, c) is not None)


def _is_whole(w: Any, c: Columns) -> bool:
    width = w.shape[1] if len(w.shape) == 2 else w.shape[0] * w.shape[2]
    return c.offset == 0 and c.runs == [(width, 1)]


def _gates(w: Any, c: Columns) -> int | None:
    """The number of gates in a block, if columns are ordered by gate, then by block."""
    N, _, O = w.shape
    runs = c.runs
    if c.offset or len(runs) != 3 or runs[2][1] != 1:
        return None
    (gates, a), (blocks, b), (d, _) = runs
    return gates if (blocks, b, a, gates * d) == (N, O, d, O) else None


def picked(w: Array, c: Columns) -> Array:
    """The matrix of these columns of `w`: its product is those of the whole product."""
    if _is_whole(w, c):
        return w
    if w.ndim == 3:
        N, I, O = w.shape
        gates = _gates(w, c) or 1
        return w.reshape(N, 1, I, gates, O // gates)
    runs = c.runs
    order = sorted(range(len(runs)), key=lambda i: -runs[i][1])
    sizes = [runs[i][0] for i in order]
    w = lax.slice_in_dim(w, c.offset, c.offset + math.prod(sizes), axis=1)
    if order != sorted(order):
        w = w.reshape(w.shape[0], *sizes)
        w = lax.transpose(w, (0, *(1 + order.index(i) for i in range(len(runs)))))
    return w.reshape(w.shape[0], math.prod(sizes))


def joined(some: list[Columns]) -> list[Columns]:
    """The same columns in the same order, with neighbours made one."""
    found: list[Columns] = []
    for c in some:
        before = found[-1] if found else None
        (n, s), *more = c.runs
        if before is not None and not more and s == 1:
            (m, t), *others = before.runs
            if not others and t == 1 and before.offset + m == c.offset:
                found[-1] = Columns(c.rows, before.offset, (((m + n, 1),),))
                continue
        found.append(c)
    return found
