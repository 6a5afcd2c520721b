"""Rewrites sums of a product in the loop and a product of the inputs.

A gradient keeps one array in place of the two terms of such a sum, if nothing else
reads them. But often only a gate is summed: slices of both products, after reshapes and
with biases added on the way. Then the columns of that gate are made products of their
own, so that the terms are whole products.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax import Array, lax
from jax.export import is_symbolic_dim
from jax.extend.core import JaxprEqn, Literal

from jaxseq._base.dtypes import is_float
from jaxseq._scan.columns import (
    Columns,
    all_columns,
    is_picked,
    joined,
    move,
    moved,
    picked,
)
from jaxseq._scan.kinds import Kind, kinds_of
from jaxseq._scan.products import times_p
from jaxseq._scan.program import Program, as_written, read, run, traced_again


class Part(NamedTuple):
    """A value that is some columns of a root, maybe with fixed terms added.

    A root is a product, or another array that depends on x_t alone.
    """

    root: Any
    columns: Columns


class Sums(NamedTuple):
    parts: dict[Any, Part]  # all parts of the roots that have one in a sum
    pairs: dict[Any, tuple[Any, Any]]  # the two terms of each sum, the loop's first
    leaves: dict[Any, list[Any]]  # the parts of each root that are read elsewhere


def summed(
    program: Program, n_fixed: int, n_state: int, is_map: Callable[[JaxprEqn], bool]
) -> Program:
    """The same program, with the terms of its sums made whole products.

    `is_map` tells which equations, of those that depend on x_t alone, run for many
    steps at a time.
    """
    of = kinds_of(program, n_fixed, n_state)
    makers = {e.outvars[0]: e for e in program.eqns if e.primitive is times_p}
    early = [e for e in program.eqns if of(e) == Kind.INPUT and is_map(e)]
    roots = [*makers, *program.ins[n_fixed + n_state :]]
    roots += [v for e in early for v in e.outvars]
    parts, pairs, leaves = _sums(program, list(filter(_may_be, roots)), makers, of)
    if not pairs:
        return program
    fixed = [e for e in program.eqns if of(e) == Kind.FIXED]
    spread = {e.outvars[0]: e for e in fixed if e.primitive.name == "broadcast_in_dim"}
    groups: dict[Any, list[Any]] = defaultdict(list)
    for out, (z, x) in pairs.items():
        groups[parts[z].root, parts[x].root].append(out)

    def again(*args: Any) -> list[Any]:
        env: dict[Any, Any] = dict(zip(program.ins, args, strict=True))
        plus: dict[Any, Any] = {}  # the fixed terms that were added to a part
        bare: dict[Any, Array] = {}  # leaves and sums, without these terms

        def product(root: Any, some: Sequence[Any]) -> Array:
            """The product with the columns of these parts, one after the other."""
            if root not in makers:
                return env[root]
            e = makers[root]
            x, w = map(value, e.invars)
            matrices = [picked(w, c) for c in joined([parts[v].columns for v in some])]
            if len(matrices) > 1:
                matrices = [lax.concatenate(matrices, 1)]
            with as_written(e):
                return times_p.bind(x, matrices[0], **e.params)

        def put(whole: Array, some: dict[Any, Any]) -> None:
            """Splits a product into its parts, each in the shape of its value."""
            sizes = [len(parts[v].columns.indices()) for v in some.values()]
            pieces = [whole]
            if len(sizes) > 1:
                pieces = lax.split(whole, sizes, axis=whole.ndim - 1)
            for piece, v in zip(pieces, some, strict=True):
                bare[v] = piece.reshape(v.aval.shape)

        def value(v: Any) -> Any:
            if type(v) is not Literal and v not in env:
                some = leaves[parts[v].root]
                if v not in bare:
                    put(product(parts[v].root, some), {a: a for a in some})
                env[v] = bare[v] + plus[v] if v in plus else bare[v]
            return read(env, v)

        def total(out: Any) -> Array:
            z, x = pairs[out]
            if out not in bare:
                outs = groups[parts[z].root, parts[x].root]
                terms = zip(*(pairs[v] for v in outs), strict=True)
                both = [product(parts[some[0]].root, some) for some in terms]
                put(both[0] + both[1], {v: pairs[v][0] for v in outs})
            result = bare[out]
            for v in (z, x):
                result = result + plus[v] if v in plus else result
            return result

        def narrow(b: Any, rows: int) -> Array:
            """A fixed term, with only one row where it was broadcast over the rows."""
            e = spread.get(b)
            if e is None:
                return read(env, b)
            axes = e.params["broadcast_dimensions"]
            size = lambda i, n: 1 if i < rows and i not in axes else n
            shape = [size(i, n) for i, n in enumerate(e.params["shape"])]
            return lax.broadcast_in_dim(read(env, e.invars[0]), shape, axes)

        def follow(e: JaxprEqn) -> None:
            """Notes the fixed terms of the parts that an equation makes."""
            if e.outvars[0] in makers:
                return
            with as_written(e):
                if e.primitive.name == "add":
                    (v,) = (v for v in e.invars if v in parts)
                    (b,) = (b for b in e.invars if b is not v)
                    b = narrow(b, len(parts[v].columns.rows))
                    plus[e.outvars[0]] = plus[v] + b if v in plus else b
                elif e.invars[0] in plus:
                    (v,), rows = e.invars, len(parts[e.outvars[0]].columns.rows)
                    found = move(e, plus[v], rows)
                    plus.update(zip(e.outvars, found, strict=True))

        for e in program.eqns:
            out = e.outvars[0]
            if out in pairs:
                with as_written(e):
                    env[out] = total(out)
            elif out in parts and (parts[out].root is not out or out in makers):
                follow(e)
            else:
                for v in e.invars:
                    value(v)
                run([e], env)
        return list(map(value, program.outs))

    return traced_again(again, program)


def _may_be(v: Any) -> bool:
    """Whether a value, or some of its columns, may be a term of a sum."""
    shape = v.aval.shape
    return is_float(v.aval) and len(shape) > 0 and not is_symbolic_dim(shape[-1])


def _sums(program: Program, roots: list[Any], makers: dict[Any, Any], of: Any) -> Sums:
    parts = {v: Part(v, all_columns(v.aval.shape)) for v in roots}
    sums: list[JaxprEqn] = []
    readers: Counter[Any] = Counter()
    for e in program.eqns:
        some = [v for v in e.invars if type(v) is not Literal and v in parts]
        found = _followed(e, some, parts, of)
        if found is not None:
            parts |= dict(zip(e.outvars, found, strict=True))
            continue
        readers.update(some)
        if e.primitive.name == "add" and len(some) == 2:
            sums.append(e)
    readers.update(v for v in program.outs if type(v) is not Literal and v in parts)
    leaves: dict[Any, list[Any]] = defaultdict(list)
    for v in readers:
        leaves[parts[v].root].append(v)
    good = {root for root, some in leaves.items() if _is_cut(root, some, parts, makers)}
    pairs: dict[Any, Any] = {}
    for e in sums:
        z, x = sorted(e.invars, key=lambda v: -of(parts[v].root))
        kinds = [of(parts[v].root) for v in (z, x)]
        alone = readers[z] == readers[x] == 1 and {parts[z].root, parts[x].root} <= good
        alike = parts[z].columns.rows == parts[x].columns.rows
        if kinds == [Kind.LOOP, Kind.INPUT] and alone and alike:
            pairs[e.outvars[0]] = z, x
    paired = {v for pair in pairs.values() for v in pair}
    used = {parts[v].root for v in paired}
    rest = {r: [v for v in leaves[r] if v not in paired] for r in used}
    return Sums({v: p for v, p in parts.items() if p.root in used}, pairs, rest)


def _followed(
    e: JaxprEqn, some: list[Any], parts: dict[Any, Part], of: Any
) -> list[Part] | None:
    """The parts that an equation makes of a part, by a move or by a fixed term."""
    if len(some) != 1 or e.outvars[0] in parts:
        return None
    root, columns = parts[some[0]]
    if e.primitive.name == "add":
        (b,) = (b for b in e.invars if b is not some[0])
        atoms: Any = b, some[0], e.outvars[0]
        added, before, after = (v.aval.shape for v in atoms)
        n = len(columns.rows)
        alike = len(added) == len(after) and added[n:] == after[n:]
        whole = before == after
        return (
            [Part(root, columns)] if of(b) == Kind.FIXED and alike and whole else None
        )
    found = moved(e, columns)
    return None if found is None else [Part(root, c) for c in found]


def _is_cut(root: Any, some: list[Any], parts: Any, makers: Any) -> bool:
    """Whether these parts of a root can be products of their own, with no overlap."""
    if root not in makers:
        return len(some) == 1 and parts[some[0]].columns == all_columns(root.aval.shape)
    w = makers[root].invars[1].aval
    columns = [parts[v].columns for v in some]
    count = Counter(i for c in columns for i in c.indices())
    fits = len(w.shape) == 2 or len(some) == 1
    once = set(count.values()) <= {1}
    return fits and once and all(is_picked(w, c) for c in columns)
