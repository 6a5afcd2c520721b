"""A value computed in one form and its derivatives in another.

What is fastest without a gradient is not always what a gradient starts from.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

Form = Callable[..., Any]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def in_form(value: Form, derivatives: Form, *args: Any) -> Any:
    """`value(*args)`, whose derivatives are those of `derivatives`, its equal."""
    return value(*args)


def _jvp(value: Form, derivatives: Form, primals: Any, tangents: Any) -> Any:
    leaves, tree = jax.tree.flatten(primals)
    is_zero = lambda d: isinstance(d, SymbolicZero)
    d_leaves = jax.tree.leaves(tangents, is_leaf=is_zero)
    moving = [i for i, d in enumerate(d_leaves) if not is_zero(d)]

    def of_moving(*some: Any) -> Any:
        whole = list(leaves)
        for i, a in zip(moving, some, strict=True):
            whole[i] = a
        return derivatives(*tree.unflatten(whole))

    some = [leaves[i] for i in moving], [d_leaves[i] for i in moving]
    return jax.jvp(of_moving, *some)


in_form.defjvp(_jvp, symbolic_zeros=True)
