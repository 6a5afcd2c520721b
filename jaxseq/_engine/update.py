"""A user's update as what the engine runs, found out about on its own jaxpr.

An update is traced once for each of the shapes it is given, on one row. Arrays that
it closes over come out as constants of the jaxpr, and become operands like `extra`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Jaxpr, jaxprs_in_params

from jaxseq._base.check import check
from jaxseq._base.dtypes import is_float
from jaxseq._base.mesh import vary
from jaxseq._engine.chain import product, product_p
from jaxseq._engine.step import Step, step_from

Update = Callable[[Any, Any, Any, Any], Any]


class Shapes(NamedTuple):
    """Of one row, as `jax.ShapeDtypeStruct`; `w_h` of whole matrices."""

    z_x: Any
    state: Any
    w_h: Any
    extra: Any


def width_in(w: Any) -> int:
    """I of a matrix; see `products`."""
    return _widths(w)[0]


def width_out(w: Any) -> int:
    return _widths(w)[1]


def _widths(w: Any) -> tuple[int, int]:
    if len(w.shape) == 2:
        return w.shape
    if len(w.shape) == 3:
        N, I, O = w.shape
        return N * I, N * O
    N, P, I, Q, O = w.shape
    return N * P * I, N * Q * O


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
        sizes=tuple(w.size for w in w_h),
        precisions=(None,) * len(w_h),
        map_precisions=(None,) * len(z_x),
        held=len(consts),
        **more,
    )
