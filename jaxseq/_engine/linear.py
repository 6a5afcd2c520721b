"""Linear maps with a transpose of their own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def with_transpose(
    f: Callable[[Any], Any],
    transpose: Callable[..., Any],
    constants: Any,
    b: Any,
    out: Any,
) -> Any:
    """`f(b)` for a linear `f`, whose transpose is `transpose(*cotangents of out)`.

    For rules of `jax.custom_jvp`: `b` are tangents, `constants` the primal values that
    both functions depend on. Forward mode, and derivatives of derivatives, go through
    `f`; reverse mode goes through `transpose`. Both give trees; `out` is a tuple like
    `f(b)`, read for its shapes and dtypes.

    >>> from jaxseq._engine.linear import with_transpose
    >>> @jax.custom_jvp
    ... def running_sum_of_squares(a):
    ...     return jnp.cumsum(a**2)
    >>> @running_sum_of_squares.defjvp
    ... def _(primals, tangents):
    ...     (a,), (b,) = primals, tangents
    ...     y = running_sum_of_squares(a)
    ...     f = lambda b: (jnp.cumsum(2 * a * b),)
    ...     transpose = lambda d: 2 * a * jnp.cumsum(d[::-1])[::-1]
    ...     return y, with_transpose(f, transpose, a, b, (y,))[0]
    >>> jax.grad(lambda a: running_sum_of_squares(a).sum())(jnp.arange(3.0)).tolist()
    [0.0, 4.0, 4.0]

    Written as the solution v = (b, f(b)) of the linear
    system v - (0, f(b)) = (b, 0), it is what `lax.custom_linear_solve` takes.

    What that transposes may not be constant in part, so all of v gets to depend on
    all of b, and all of the linear system on all constants, by paths that are never
    taken and that XLA removes.
    """

    def matvec(v: Any) -> Any:
        b, r = v
        v = b, jax.tree.map(jnp.subtract, r, f(b))
        return jax.tree.map(lambda a: jnp.where(False, a * known.astype(a.dtype), a), v)

    def solve(_: Any, v: Any) -> Any:
        b, r = v
        return b, jax.tree.map(jnp.add, r, f(b))

    def transpose_solve(_: Any, v: Any) -> Any:
        b, r = v
        return jax.tree.map(jnp.add, b, transpose(*r)), r

    dtype = jax.tree.leaves(out)[0].dtype
    known, unknown = _nothing(constants, dtype), _nothing(b, dtype)
    v = b, jax.tree.map(jnp.zeros_like, out)
    v = jax.tree.map(lambda a: jnp.where(False, unknown.astype(a.dtype), a), v)
    return lax.custom_linear_solve(matvec, v, solve, transpose_solve)[1]


def _nothing(tree: Any, dtype: Any) -> Array:
    """A zero that depends on all floats of a tree, infinite ones too."""
    zero = jnp.zeros((), dtype)
    for a in jax.tree.leaves(tree):
        if jnp.issubdtype(a.dtype, jnp.floating):
            zero = zero + jnp.where(False, a, 0).sum().astype(dtype)
    return zero
