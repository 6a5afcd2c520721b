"""Linear maps with a transpose of their own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jax.interpreters.ad import (
    Zero,
    instantiate_zeros,
    primitive_jvps,
    primitive_transposes,
)

from jaxseq._engine.mesh import placing
from jaxseq._engine.shapes import of_one_member


def with_transpose(
    f: Callable[..., Any],
    transpose: Callable[..., Any],
    constants: Any,
    b: Any,
    out: Any,
    side_effects: frozenset[Any] = frozenset(),
    **options: Any,
) -> Any:
    """`f(constants, b)` for an `f` that is linear in `b`.

    Its transpose is `transpose(constants, like, d)`: `like` has the types of `b`, and
    `d` are cotangents of `out`, which is like what `f` gives. Both functions are given
    the options too. These are hashable, and like the functions hold no arrays.
    `side_effects` are those of the functions, such as that of `jax.debug.print`.

    For rules of derivatives: `b` are tangents, `constants` the primal values that both
    functions depend on. Forward mode, and derivatives of derivatives, go through `f`;
    reverse mode goes through `transpose`, which is never differentiated. Each function
    is traced only where it runs, so a gradient does not trace `f`.

    >>> from jaxseq._engine.linear import with_transpose
    >>> def f(a, b):
    ...     return jnp.cumsum(2 * a * b)
    >>> def transpose(a, like, d):
    ...     return 2 * a * jnp.cumsum(d[::-1])[::-1]
    >>> @jax.custom_jvp
    ... def running_sum_of_squares(a):
    ...     return jnp.cumsum(a**2)
    >>> @running_sum_of_squares.defjvp
    ... def _(primals, tangents):
    ...     (a,), (b,) = primals, tangents
    ...     y = running_sum_of_squares(a)
    ...     return y, with_transpose(f, transpose, a, b, y)
    >>> jax.grad(lambda a: running_sum_of_squares(a).sum())(jnp.arange(3.0)).tolist()
    [0.0, 4.0, 4.0]
    """
    leaves, trees = zip(*map(jax.tree.flatten, (constants, b, out)), strict=True)
    found = linear_p.bind(
        *leaves[0],
        *leaves[1],
        f=f,
        transpose=transpose,
        trees=trees,
        types=tuple(tuple(map(jax.typeof, some)) for some in leaves[1:]),
        turned=False,
        members=(),
        side_effects=side_effects,
        **options,
    )
    return trees[2].unflatten(found)


# Maps the constants and b to `out`; if `turned`, the constants and d to what is like
# b. `members` has the axes of the constants for each `vmap`; everything else has the
# mapped axis in front.
linear_p = Primitive("jaxseq_linear")
linear_p.multiple_results = True


@linear_p.def_effectful_abstract_eval
def _(
    *avals: Any, types: Any, turned: bool, members: Any, side_effects: Any, **_: Any
) -> tuple[list[Any], Any]:
    axes = _with_all(members, len(avals))
    placed, (_shapes, lead) = placing(avals), of_one_member(avals, axes)
    return [placed((*lead, *a.shape), a.dtype) for a in types[not turned]], side_effects


def _run(
    *leaves: Array,
    f: Any,
    transpose: Any,
    trees: Any,
    types: Any,
    turned: bool,
    members: Any,
    side_effects: Any,
    by_jax: bool = False,
    **options: Any,
) -> list[Array]:
    """Runs the map or its transpose.

    With `by_jax` the transpose is derived by JAX from `f`, so that it has derivatives
    by the constants.
    """
    del side_effects
    n, like = trees[0].num_leaves, trees[1].unflatten(types[0])

    def one(*leaves: Array) -> list[Array]:
        constants = trees[0].unflatten(leaves[:n])
        given = trees[1 + turned].unflatten(leaves[n:])
        if not turned:
            return jax.tree.leaves(f(constants, given, **options))
        if not by_jax:
            return jax.tree.leaves(transpose(constants, like, given, **options))

        def depending(b: Any) -> Any:
            on = partial(_depending_on, b)
            return on(f(constants, on(b), **options))

        return jax.tree.leaves(jax.linear_transpose(depending, like)(given)[0])

    run: Any = one
    for axes in _with_all(members, len(leaves)):
        run = jax.vmap(run, axes)
    return run(*leaves)


def _with_all(members: Any, number: int) -> list[tuple[int | None, ...]]:
    """`members` with the axes of what follows the constants."""
    return [(*axes, *[0] * (number - len(axes))) for axes in members]


def _depending_on(b: Any, tree: Any) -> Any:
    """A tree whose parts all depend on all of `b`, by paths that are never taken.

    What JAX transposes may not be constant in part. XLA removes these paths.
    """
    zero = jnp.zeros((), jnp.float32)
    for a in jax.tree.leaves(b):
        zero = zero + jnp.where(False, a, 0).sum().astype(zero.dtype)
    return jax.tree.map(lambda a: jnp.where(False, zero.astype(a.dtype), a), tree)


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    n = params["trees"][0].num_leaves
    out, parts = linear_p.bind(*primals, **params), []
    is_zero = [isinstance(d, Zero) for d in tangents]
    if not all(is_zero[n:]):
        given = map(instantiate_zeros, tangents[n:])
        parts.append(linear_p.bind(*primals[:n], *given, **params))
    moving = [i for i in range(n) if not is_zero[i]]
    if moving:

        def run(some: list[Array]) -> list[Array]:
            now: Any = dict(zip(moving, some, strict=True))
            leaves = [now.get(i, a) for i, a in enumerate(primals)]
            return _run(*leaves, by_jax=True, **params)

        at, d = ([each[i] for i in moving] for each in (primals, tangents))
        parts.append(jax.jvp(run, (at,), (d,))[1])
    return out, [sum(d[1:], start=d[0]) for d in zip(*parts, strict=True)]


def _transposed(d: Any, *leaves: Any, turned: bool, **params: Any) -> list[Any]:
    n = params["trees"][0].num_leaves
    given = map(instantiate_zeros, d)
    found = linear_p.bind(*leaves[:n], *given, turned=not turned, **params)
    return [*[None] * n, *found]


def _batched(args: Any, dims: Any, *, members: Any, **params: Any) -> Any:
    n = params["trees"][0].num_leaves
    N = next(a.shape[i] for a, i in zip(args, dims, strict=True) if i is not None)

    def in_front(a: Array, axis: int | None) -> Array:
        if axis is None:
            return jnp.broadcast_to(a, (N, *a.shape))
        return jnp.moveaxis(a, axis, 0)

    given = list(map(in_front, args[n:], dims[n:]))
    members = *members, tuple(dims[:n])
    out = linear_p.bind(*args[:n], *given, members=members, **params)
    return out, [0] * len(out)


primitive_jvps[linear_p] = _jvp
primitive_transposes[linear_p] = _transposed
batching.primitive_batchers[linear_p] = _batched
linear_p.def_impl(_run)
mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))
