"""A user's update as what the engine runs, found out about on its own jaxpr.

An update is traced once for each of the shapes it is given, on one row. Arrays that
it closes over come out as constants of the jaxpr, and become operands like `extra`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params

from jaxseq._base.check import check
from jaxseq._base.dtypes import is_float
from jaxseq._base.mesh import vary
from jaxseq._engine.chain import Chain, chain_of, product, product_p

Update = Callable[[Any, Any, Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Step:
    """What one step does, in leaves.

    It takes arrays of the shapes given here: rows, of an update, or the whole arrays
    of a scan's body. What lies in front of these shapes is a batch. Both chains give
    the new state, the outputs, then of each matrix that is called what its product
    came to and what it read. Where a part of z_x and a product are read by their sum
    only, that is what the product of `summed` stands for; it does not read that part.
    """

    name: str
    tree: Any  # of the state
    widths: tuple[tuple[int, int], ...]  # (I, O) of each matrix
    called: tuple[int, ...]  # matrices that the update calls
    chain: Chain  # (z_x, state, extra) -> (state, ys, z, lefts)
    summed: Chain
    recall: Chain  # that of the lefts alone
    sums: tuple[int | None, ...]  # of each part of z_x the matrix it is added to
    z_x: tuple[Any, ...]  # shapes and dtypes
    state: tuple[Any, ...]
    extra: tuple[Any, ...]
    ys: tuple[Any, ...]
    tells: tuple[int | None, ...]  # of each output the part of the state that it is
    z: tuple[Any, ...]  # of each matrix that is called
    lefts: tuple[Any, ...]
    precisions: tuple[Any, ...]  # of the product with each matrix
    jaxpr: Jaxpr
    has_effects: bool
    held: int = 0  # how many of `extra`, at its end, the update closes over
    native: bool = False  # these belong to the mesh where it was traced
    varied: "Step | None" = None  # the same on rows that vary over axes of `shard_map`

    @property
    def is_complex(self) -> bool:
        parts = (*self.z_x, *self.extra)
        return any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in parts)

    def left_part(self, i: int) -> int | None:
        """The part of the state that the i-th product reads as it is, if y tells it."""
        left = self.chain.outvars[i - len(self.called)]
        n = len(self.z_x)
        for p in self.tells:
            if p is not None and self.chain.invars[n + p] is left:
                return p
        return None


class Shapes(NamedTuple):
    """Of one row, as `jax.ShapeDtypeStruct`; `w_h` of whole matrices."""

    z_x: Any
    state: Any
    w_h: Any
    extra: Any


def width_in(w: Any) -> int:
    """I of a matrix `(I, O)` or of N blocks `(N, I / N, O / N)`."""
    return w.shape[0] if len(w.shape) == 2 else w.shape[0] * w.shape[1]


def width_out(w: Any) -> int:
    return w.shape[-1] if len(w.shape) == 2 else w.shape[0] * w.shape[2]


def traced(
    update: Update, shapes: Shapes, axes: frozenset[Any] = frozenset()
) -> tuple[Jaxpr, list[Any]]:
    """The jaxpr of an update, its constants behind its arguments.

    Its arguments and what it gives vary over the axes of `shard_map` that are named.
    """
    matrices, w_h_tree = jax.tree.flatten(shapes.w_h)
    widths = [(width_in(w), width_out(w)) for w in matrices]
    z_dtype = jax.tree.leaves(shapes.state)[0].dtype
    used: set[int] = set()

    def times(k: int, a: Any) -> Array:
        I, O = widths[k]
        a = jnp.asarray(a)
        got = f"{a.dtype} of shape {a.shape}"
        ok = a.shape == (I,) and is_float(a)
        check(ok, "update", f"a matrix {I, O} to be given a row ({I},)", got)
        check(
            k not in used,
            "update",
            "each matrix to be called at most once",
            "two calls",
        )
        used.add(k)
        return product(k, a.astype(z_dtype), O)

    def on_row(z_x: Any, state: Any, extra: Any) -> Any:
        w_h = w_h_tree.unflatten([partial(times, k) for k in range(len(matrices))])
        try:
            new = update(z_x, state, w_h, extra)
        except Exception as error:
            given = f"z_x {described(z_x)}, a state {described(state)}"
            error.add_note(f"the update was given {given}")
            raise
        check_new(new, shapes.state)
        old = jax.tree.leaves(shapes.state)
        # not weakly typed, for the state of a loop is not
        typed = zip(jax.tree.leaves(new), old, strict=True)
        return vary([jnp.asarray(a, b.dtype) for a, b in typed], axes)

    args = shapes.z_x, shapes.state, shapes.extra
    if axes:
        zeros = lambda a: jnp.zeros(a.shape, a.dtype)
        args = vary(jax.tree.map(zeros, args), axes)
    closed = jax.make_jaxpr(on_row)(*args)
    jaxpr = closed.jaxpr
    for e in jaxpr.eqns:
        inside = any(map(_has_product, jaxprs_in_params(e.params)))
        where = f"inside {e.primitive.name}"
        check(not inside, "update", "each matrix to be called at its top level", where)
        if e.primitive is product_p:
            rank = e.invars[0].aval.ndim  # pyright: ignore
            check(rank == 1, "update", "each matrix to be given one row", "vmap")
    operands = [*jaxpr.invars, *jaxpr.constvars]
    jaxpr = jaxpr.replace(constvars=[], invars=operands)
    return jaxpr, list(closed.consts)


def _has_product(jaxpr: Any) -> bool:
    return any(
        e.primitive is product_p or any(map(_has_product, jaxprs_in_params(e.params)))
        for e in jaxpr.eqns
    )


def check_new(new: Any, state: Any) -> None:
    """Checks that an update gives a state like the one it is given."""
    expected = f"a state {described(state)}"
    same = jax.tree.structure(new) == jax.tree.structure(state)
    check(same, "update", expected, described(new))
    leaves = zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True)
    ok = all(
        jnp.shape(a) == b.shape and jnp.result_type(a) == b.dtype for a, b in leaves
    )
    check(ok, "update", expected, described(new))


def described(tree: Any) -> str:
    """A state in words, such as `LSTMState(h=float32[8], c=float32[8])`."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields = zip(tree._fields, tree, strict=True)  # pyright: ignore
        inner = ", ".join(f"{name}={described(a)}" for name, a in fields)
        return f"{type(tree).__name__}({inner})"
    if not isinstance(tree, tuple) and hasattr(tree, "dtype"):
        return f"{tree.dtype}[{','.join(map(str, tree.shape))}]"
    return type(tree).__name__


def step_of(
    update: Update, shapes: Shapes, jaxpr: Jaxpr, consts: list[Any], **more: Any
) -> Step:
    """What is found out about an update on its jaxpr."""
    z_x, state, w_h, extra = (tuple(jax.tree.leaves(part)) for part in shapes)
    row = lambda a: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype)
    return step_from(
        jaxpr.replace(outvars=[*jaxpr.outvars, jaxpr.outvars[0]]),
        z_x,
        state,
        (*extra, *map(row, consts)),
        name=getattr(update, "__name__", type(update).__name__),
        tree=jax.tree.structure(shapes.state),
        widths=tuple((width_in(w), width_out(w)) for w in w_h),
        precisions=(None,) * len(w_h),
        held=len(consts),
        **more,
    )


def step_from(jaxpr: Jaxpr, z_x: Any, state: Any, extra: Any, **more: Any) -> Step:
    """The step of a jaxpr (z_x, state, extra) -> (state, ys) with products in it."""
    products = {e.params["k"]: e for e in jaxpr.eqns if e.primitive is product_p}
    called = tuple(sorted(products))
    sums, eqns = _sums(jaxpr, products, len(z_x)), jaxpr.eqns
    z = {k: e.outvars[0] for k, e in products.items()}
    instead: dict[int, list[Any]] = {}
    for k, add in sums.values():
        z[k] = add.outvars[0]
        e = products[k]
        instead |= {id(e): [e.replace(outvars=[z[k]])], id(add): []}
    eqns = [new for e in eqns for new in instead.get(id(e), [e])]
    lefts = [products[k].invars[0] for k in called]
    results = [*jaxpr.outvars, *(z[k] for k in called), *lefts]
    of = lambda v: jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
    new, ys = jaxpr.outvars[: len(state)], jaxpr.outvars[len(state) :]
    return Step(
        called=called,
        chain=chain_of(jaxpr.replace(outvars=results)),
        summed=chain_of(jaxpr.replace(eqns=eqns, outvars=results)),
        recall=chain_of(jaxpr.replace(eqns=eqns, outvars=lefts)),
        sums=tuple(sums[i][0] if i in sums else None for i in range(len(z_x))),
        z_x=tuple(z_x),
        state=tuple(state),
        extra=tuple(extra),
        ys=tuple(map(of, ys)),
        tells=tuple(new.index(v) if v in new else None for v in ys),
        z=tuple(of(z[k]) for k in called),
        lefts=tuple(map(of, lefts)),
        jaxpr=jaxpr,
        has_effects=bool(jaxpr.effects),
        **more,
    )


def _sums(jaxpr: Jaxpr, products: Any, n_x: int) -> dict[int, tuple[int, Any]]:
    """Of parts of z_x that are read in a sum with a product: that, and its equation.

    That sum is the one reader of both, so the step depends on nothing else of them.
    """
    readers: dict[Any, list[Any]] = {}
    for e in jaxpr.eqns:
        for v in e.invars:
            if type(v) is not Literal:
                readers.setdefault(v, []).append(e)
    for v in jaxpr.outvars:
        if type(v) is not Literal:
            readers.setdefault(v, []).append(None)
    found: dict[int, tuple[int, Any]] = {}
    for i, x in enumerate(jaxpr.invars[:n_x]):
        adds = readers.get(x, [])
        for k, e in products.items():
            others = readers.get(e.outvars[0], [])
            if len(adds) == len(others) == 1 and adds[0] is others[0] is not None:
                if adds[0].primitive.name == "add":
                    found[i] = k, adds[0]
    return found


# What stands for a step among the parameters of an equation. JAX keeps parameters in
# caches, and so all that they refer to, but refers to jaxprs weakly.
_of_step: WeakKeyDictionary[Step, Any] = WeakKeyDictionary()
_step_of: WeakKeyDictionary[ClosedJaxpr, Step] = WeakKeyDictionary()


def jaxpr_of(step: Step) -> ClosedJaxpr:
    found = _of_step.get(step, lambda: None)()
    if found is None:
        found = ClosedJaxpr(step.jaxpr, ())
        _of_step[step], _step_of[found] = ref(found), step
    return found


def step_by(jaxpr: ClosedJaxpr) -> Step:
    return _step_of[jaxpr]
