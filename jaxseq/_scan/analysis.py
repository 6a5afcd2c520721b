"""A body of a scan: what the engine can run of it, or why it is left to `lax.scan`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.extend.core import JaxprEqn, jaxprs_in_params
from jax.sharding import get_abstract_mesh, use_abstract_mesh

from jaxseq._base.check import check_value, is_whole
from jaxseq._base.dtypes import floats, is_float, with_floats
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.native import is_for_native, is_turned_off
from jaxseq._engine.steps import reads
from jaxseq._engine.types import settings
from jaxseq._engine.work import MANY_ROWS, on_one_core, work_of
from jaxseq._scan.custom import NotFree
from jaxseq._scan.early import rule
from jaxseq._scan.keys import kind_of, unwrapped, wrapped
from jaxseq._scan.meshes import Layout, freed, layout_of, mesh_of, of_one_step, varied
from jaxseq._scan.plan import Plan, is_map, plan_of
from jaxseq._scan.products import normalised
from jaxseq._scan.program import Program, aval, inlined, program_of, read, run
from jaxseq._scan.rows import of_half
from jaxseq._scan.sums import summed

MOST_IN_HALVES = 2  # products of a loop; more are slower in halves than one by one

Body = Callable[[Any, Any], tuple[Any, Any]]


class Given(NamedTuple):
    """A body, traced for its arguments."""

    program: Program  # (constants..., state..., x...) -> (state..., ys...)
    consts: list[Any]  # arrays that it closes over
    state: list[Any]
    xs: list[Any]
    T: Any
    layout: Layout | None  # if the types of arrays say where they lie
    why: str | None  # it is left to `lax.scan`, if so
    tree: Any  # of the state
    as_given: Any  # from leaves of state and outputs to what the body gives
    key: Any  # tells it from others of the same body
    text: str


def steps_of(xs: Any, length: Any) -> Any:
    """The number of steps, that may be symbolic; None if it is not clear."""
    leaves = jax.tree.leaves(xs)
    sizes = {a.shape[0] if getattr(a, "ndim", 0) else None for a in leaves}
    sizes |= set() if length is None else {length}
    return sizes.pop() if len(sizes) == 1 else None


def given(body: Body, init: Any, xs: Any, length: Any) -> Given | str:
    """A body and its arguments, or why `lax.scan` is given them as they are."""
    state, tree = jax.tree.flatten(init)
    inputs, xs_tree = jax.tree.flatten(xs)
    if length is not None:
        ok = is_symbolic_dim(length) or (is_whole(length) and length >= 0)
        check_value(ok, "length", "a number of steps, 0 or more", length)
    kinds = [kind_of(a) for a in (*state, *inputs)]
    state = [unwrapped(a, "init") for a in state]
    inputs = [unwrapped(a, "xs") for a in inputs]
    T = steps_of(inputs, length)
    if T is None:
        return "the number of steps is not clear"  # lax.scan says so
    if T == 0:
        return "there are no steps"
    if jax.config.jax_disable_jit:  # pyright: ignore
        return "jit is disabled"
    n = len(state)
    out: dict[str, Any] = {}

    def flat(*args: Any) -> list[Any]:
        leaves = [wrapped(a, kind) for a, kind in zip(args, kinds, strict=True)]
        new = body(tree.unflatten(leaves[:n]), xs_tree.unflatten(leaves[n:]))
        pair = isinstance(new, tuple) and len(new) == 2
        alike = pair and jax.tree.structure(new[0]) == tree
        leaves, out["tree"] = jax.tree.flatten(new)
        out["kinds"] = [kind_of(a) for a in leaves]
        out["alike"] = alike and out["kinds"][:n] == kinds[:n]
        return [unwrapped(a, "body") for a in leaves]

    def as_given(leaves: Any) -> Any:
        leaves = map(wrapped, leaves, out["kinds"])
        return jax.tree.unflatten(out["tree"], list(leaves))

    closed = jax.make_jaxpr(flat)(*map(jax.typeof, state), *map(of_one_step, inputs))
    program, consts = program_of(closed.jaxpr), list(closed.consts)
    why = _why_not(program, len(consts), state)
    if not out["alike"]:
        why = "it does not give a state like the one it is given"
    mesh, layout = mesh_of((*state, *inputs, *consts)), None
    if why is None and mesh is not None:
        layout = layout_of(program, mesh, state, inputs, consts)
        if isinstance(layout, str):
            layout, why = None, layout
    text = str(closed.jaxpr)
    shapes = tuple((a.shape, str(a.dtype)) for a in (*state, *inputs, *consts))
    context = get_abstract_mesh(), layout, settings(), is_turned_off()
    key = tree, xs_tree, tuple(map(str, kinds)), shapes, T, context
    return Given(
        program, consts, state, inputs, T, layout, why, tree, as_given, key, text
    )


class Plans(NamedTuple):
    """Of one body, for its value alone, and for its derivatives.

    The value is that of the program in a plain scan, if it has no plan.
    """

    value: Plan | Program
    derivatives: Plan


def planned(given: Given) -> Plans | str:
    """How the engine runs a body, or why it is left to `lax.scan`."""
    if given.why is not None:
        return given.why
    if given.layout is None:
        return _planned(given)
    axes = given.layout.axes
    try:
        with use_abstract_mesh(NO_MESH):
            plans = _planned(given._replace(program=freed(given.program)))
        if isinstance(plans, str):
            return plans
        derivatives = _on(plans.derivatives, axes)
        if plans.value is plans.derivatives:
            return Plans(derivatives, derivatives)
        return Plans(_on(plans.value, axes), derivatives)
    except NotFree as error:
        return str(error)


def _on(plan: Plan | Program, axes: frozenset[Any]) -> Any:
    """A plan for values that vary over the axes of `shard_map`."""
    if not axes or isinstance(plan, Program):
        return plan
    step = replace(plan.step, varied=varied(plan.step, axes))
    return plan._replace(step=step)


def _planned(given: Given) -> Plans | str:
    program, sizes = _inlined(given.program, given)
    program = normalised(program, *sizes)
    plan = plan_of(program, *sizes, given.tree)
    if not plan.step.called:
        return "no product with a fixed matrix reads the state"
    if plan.step.is_complex:
        return "the loop reads complex numbers"
    if any(map(_has_own_reverse, plan.loop)):
        return "a function in it has a custom_vjp"
    apart = summed(program, *sizes, is_map)
    derivatives = plan if apart is program else plan_of(apart, *sizes, given.tree)
    rows, _ = work_of(plan.step, ())
    # one product for all gates that read a value, where derivatives have one for each
    value = plan if len(plan.w_h) < len(derivatives.w_h) else derivatives
    w_h = [w.aval for w in value.w_h]
    if given.layout is None and is_for_native(value.step, w_h):
        pass  # the other two are for the loop
    elif rows >= MANY_ROWS and plan.early:
        value = given.program  # what is made of x_t, in the step that reads it
    elif on_one_core(plan.step, ()) and len(plan.w_h) <= MOST_IN_HALVES:
        value = _of_half(given) or value
    try:
        reads(derivatives.step)
    except Exception:
        if _has_gradient(program):
            raise
        return "it has no derivative in reverse mode"
    return Plans(value, derivatives)


def _inlined(program: Program, given: Given) -> tuple[Program, tuple[int, int]]:
    """Without calls, and how many of its variables are fixed, and of the state."""
    program = inlined(program)
    return program, (len(program.held) + len(given.consts), len(given.state))


def _of_half(given: Given) -> Plan | None:
    """The plan for half the rows, if they are independent."""
    if given.layout is not None or not given.xs:
        return None
    n_fixed, n_state = len(given.consts), len(given.state)
    half = of_half(given.program, n_fixed)
    if half is None:
        return None
    half = normalised(half, n_fixed, n_state)
    return plan_of(half, n_fixed, n_state, given.tree)._replace(halves=True)


def _why_not(program: Program, n_fixed: int, state: list[Any]) -> str | None:
    if effects := {x for e in program.eqns for x in e.effects}:
        axes = get_abstract_mesh().axis_names
        sends = all(getattr(x, "name", None) in axes for x in effects)
        return "it sends between devices" if sends else "it has effects"
    atoms = [*program.ins, *program.outs]
    if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in atoms):
        return "it has complex numbers"
    new = program.outs[: len(state)]
    old = program.ins[n_fixed : n_fixed + len(state)]
    if [_kind(a) for a in new] != [_kind(a) for a in old]:
        return "the state changes its shapes, dtypes or layout"
    if not any(is_float(a) for a in state):
        return "no part of the state is a float"
    return None


def _kind(v: Any) -> Any:
    """What `lax.scan` wants to be the same of a state and the next."""
    a = v.aval
    return a.shape, a.dtype, tuple(a.sharding.spec), a.manual_axis_type


def _has_own_reverse(e: JaxprEqn) -> bool:
    """Whether JAX has no derivative of it in forward mode, which those of higher
    orders and `vmap` of a gradient are made of here."""
    inner = (f for j in jaxprs_in_params(e.params) for f in j.eqns)
    return e.primitive.name == "custom_vjp_call" or any(map(_has_own_reverse, inner))


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
