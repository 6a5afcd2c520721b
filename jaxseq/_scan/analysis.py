"""A body of a scan: what the engine can run of it, or why it is left to `lax.scan`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.sharding import AxisType

from jaxseq._base.dtypes import floats, is_float, with_floats
from jaxseq._base.mesh import has_axes
from jaxseq._engine.steps import reads
from jaxseq._scan.early import rule
from jaxseq._scan.keys import kind_of, unwrapped, wrapped
from jaxseq._scan.plan import Plan, plan_of
from jaxseq._scan.products import normalised
from jaxseq._scan.program import Program, aval, inlined, read, run, traced

Body = Callable[[Any, Any], tuple[Any, Any]]


class Analysed(NamedTuple):
    """What there is to run of a body, or why it is left to `lax.scan`."""

    why: str | None
    plan: Plan | None = None
    consts: Any = ()
    state: Any = ()
    xs: Any = ()
    T: Any = None
    as_given: Any = None  # from leaves of the state and outputs to what the body gives


def analysed(body: Body, init: Any, xs: Any, length: Any) -> Analysed:
    state, state_tree = jax.tree.flatten(init)
    inputs, xs_tree = jax.tree.flatten(xs)
    sizes = {a.shape[0] if getattr(a, "ndim", 0) else None for a in inputs}
    sizes |= set() if length is None else {length}
    if len(sizes) != 1 or None in sizes:
        return Analysed("the number of steps is not clear")  # lax.scan says so
    (T,) = sizes
    if any(is_symbolic_dim(n) for a in (*state, *inputs) for n in jnp.shape(a)):
        return Analysed("a size is symbolic")
    if T == 0:
        return Analysed("there are no steps")
    if has_axes(AxisType.Explicit) or has_axes(AxisType.Manual):
        return Analysed("arrays are laid out on a mesh")
    raw_state = [unwrapped(a, "init") for a in state]
    raw_xs = [unwrapped(a, "xs") for a in inputs]
    kinds = [kind_of(a) for a in (*state, *inputs)]
    n = len(state)
    out: dict[str, Any] = {}

    def flat(*args: Any) -> list[Any]:
        given = [wrapped(a, kind) for a, kind in zip(args, kinds, strict=True)]
        new = body(state_tree.unflatten(given[:n]), xs_tree.unflatten(given[n:]))
        pair = isinstance(new, tuple) and len(new) == 2
        alike = pair and jax.tree.structure(new[0]) == state_tree
        leaves, out["tree"] = jax.tree.flatten(new)
        out["kinds"] = [kind_of(a) for a in leaves]
        out["alike"] = alike and out["kinds"][:n] == kinds[:n]
        return [unwrapped(a, "body") for a in leaves]

    step = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    avals = [*map(jax.typeof, raw_state), *map(step, raw_xs)]
    program, consts = traced(flat, avals)
    why = _why_not(program, len(consts), raw_state)
    if not out["alike"]:
        why = "it does not give a state like the one it is given"
    if why is not None:
        return Analysed(why)
    program = inlined(program)
    program = normalised(program, len(consts), n)
    plan = plan_of(program, len(consts), n, state_tree)
    if not plan.step.called:
        return Analysed("no product with a fixed matrix reads the state")
    try:
        reads(plan.step)
    except Exception:
        if _has_gradient(program):
            raise
        return Analysed("it has no derivative in reverse mode")

    def as_given(state: Any, ys: Any) -> Any:
        leaves = map(wrapped, (*state, *ys), out["kinds"])
        return jax.tree.unflatten(out["tree"], list(leaves))

    return Analysed(None, plan, consts, raw_state, raw_xs, T, as_given)


def _why_not(program: Program, n_fixed: int, state: list[Any]) -> str | None:
    if any(e.effects for e in program.eqns):
        return "it has effects"
    atoms = [*program.ins, *program.outs]
    if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in atoms):
        return "it has complex numbers"
    new = program.outs[: len(state)]
    old = program.ins[n_fixed : n_fixed + len(state)]
    alike = lambda a, b: (a.aval.shape, a.aval.dtype) == (b.aval.shape, b.aval.dtype)
    if not all(map(alike, new, old)):
        return "the state changes its shapes or dtypes"
    if not any(is_float(a) for a in state):
        return "no part of the state is a float"
    return None


def _has_gradient(program: Program) -> bool:
    """Whether JAX differentiates the body in reverse mode."""

    def gradients(*args: Any) -> Any:
        def f(moving: Any) -> Any:
            values = with_floats(moving, args)
            env = run(program.eqns, dict(zip(program.ins, values, strict=True)), rule)
            return [a for v in program.outs if is_float(a := read(env, v))]

        out, back = jax.vjp(f, floats(args))
        return back(out)

    try:
        jax.eval_shape(gradients, *map(aval, program.ins))
    except Exception:  # whatever its rules raise; JAX does again for who needs them
        return False
    return True
