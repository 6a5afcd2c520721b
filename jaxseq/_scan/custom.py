"""Functions with a custom derivative, as programs that run on any mesh.

The derivative that JAX keeps of such a function can be traced only for values of the
mesh that the function was traced on. So it is traced there, once, as a program too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import zero_from_primal
from jax.extend.core import JaxprEqn

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._scan.program import (
    Program,
    Rule,
    as_written,
    bound,
    program_of,
    results,
    within,
)

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call"})


class NotFree(Exception):
    """Raised with what ties a body to the mesh where it was traced."""


def with_own_derivative(e: JaxprEqn, rule: Rule) -> Callable[..., Any]:
    """The function of such an equation; `rule` runs it, and its derivative."""
    atoms: Any = [*e.invars, *e.outvars]
    if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in atoms):
        raise NotFree("a derivative of its own has complex numbers")
    avals = [v.aval for v in e.invars]
    own = lambda *args: within(e, args, rule)
    with as_written(e):
        if e.primitive.name == "custom_jvp_call":
            return _with_jvp(e, rule, own, avals)
        return _with_vjp(e, rule, own, avals)


def _with_jvp(e: JaxprEqn, rule: Rule, own: Any, avals: list[Any]) -> Any:
    def derivative(args: Any, tangents: Any) -> Any:
        f = lambda moving: bound(e, with_floats(moving, args))
        out, d_out = jax.jvp(f, (floats(args),), (tangents,))
        return out, floats(d_out)

    program, _ = _traced(derivative, avals, floats(avals))
    f = jax.custom_jvp(own)

    @f.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        moving = [d for a, d in zip(primals, tangents, strict=True) if _moves(a)]
        new = results(program, [*primals, *moving], rule)
        out, d_new = new[: len(e.outvars)], iter(new[len(e.outvars) :])
        return out, [next(d_new) if _moves(a) else zero_from_primal(a) for a in out]

    return f


def _with_vjp(e: JaxprEqn, rule: Rule, own: Any, avals: list[Any]) -> Any:
    def forward(args: Any) -> Any:
        f = lambda moving: [*map(floats, bound(e, with_floats(moving, args)))]
        out = bound(e, args)
        return out, jax.vjp(f, floats(args))[1]

    there, (out, back) = _traced(forward, avals)
    n, tree = len(out), jax.tree.structure(back)
    kept = [v.aval for v in there.outs[n:]]
    cotangents = [v.aval if _moves(v.aval) else None for v in there.outs[:n]]
    backward = lambda kept, d: tree.unflatten(kept)(d)
    again, _ = _traced(backward, kept, cotangents)
    f = jax.custom_vjp(own)

    def forth(*args: Any) -> Any:
        new = results(there, args, rule)
        return new[:n], new[n:]

    def back_again(kept: Any, d: Any) -> Any:
        some = [each for each, v in zip(d, e.outvars, strict=True) if _moves(v.aval)]
        new = iter(results(again, [*kept, *some], rule))
        return tuple(next(new) if _moves(a) else None for a in avals)

    f.defvjp(forth, back_again)
    return f


def _moves(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def _traced(f: Callable[..., Any], *args: Any) -> tuple[Program, Any]:
    try:
        closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
    except Exception as error:  # whatever its rules raise; JAX does again, if asked
        raise NotFree("a derivative of its own cannot be traced") from error
    if closed.consts:
        raise NotFree("a derivative of its own holds arrays")
    if closed.effects:
        raise NotFree("a derivative of its own has effects")
    return program_of(closed.jaxpr), out
