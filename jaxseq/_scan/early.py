"""What runs apart from the loop: once, or for all steps at a time."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal
from jax.sharding import AxisType

from jaxseq._base.mesh import has_axes
from jaxseq._engine.chain import needed
from jaxseq._engine.products import times
from jaxseq._scan.meshes import here
from jaxseq._scan.plan import Plan
from jaxseq._scan.products import times_p
from jaxseq._scan.program import bound, read, run


def rule(e: Any, values: Any) -> Sequence[Any]:
    if e.primitive is not times_p:
        return (here if has_axes(AxisType.Manual) else bound)(e, values)
    return [times(*values, precision=e.params["precision"])]


def fixed_of(plan: Plan, consts: Sequence[Any]) -> dict[Any, Array]:
    """The fixed values that the loop and the equations before it read."""
    n, _ = plan.sizes
    values = [*plan.program.held, *consts]
    env = dict(zip(plan.program.ins[:n], values, strict=True))
    run(needed(plan.program.eqns, plan.fixed), env, rule)
    return {v: env[v] for v in plan.fixed}


def inputs_of(plan: Plan, fixed: dict[Any, Array], xs: Sequence[Array]) -> list[Array]:
    """What the engine reads of all steps, `(T, ...)`."""
    inputs = plan.program.ins[sum(plan.sizes) :]
    stacked: dict[Any, Array] = dict(zip(inputs, xs, strict=True))
    env: dict[Any, Any] = dict(fixed)
    for e in plan.early:
        over_time = [type(v) is not Literal and v in stacked for v in e.invars]
        values = [
            stacked[v] if yes else read(env, v)
            for v, yes in zip(e.invars, over_time, strict=True)
        ]
        if not any(over_time):
            run([e], env, rule)
            continue
        if e.primitive is times_p:  # its matrix is fixed
            out = rule(e, values)
        else:
            axes = [0 if yes else None for yes in over_time]
            out = jax.vmap(lambda *a, e=e: rule(e, a), axes)(*values)
        stacked.update(zip(e.outvars, out, strict=True))
    return [stacked[v] for v in plan.inputs]


def same_of(
    plan: Plan,
    which: Sequence[int],
    consts: Any,
    state: Any,
    xs: Any,
    T: int,
    reverse: bool,
) -> dict[int, Array]:
    """The results `which`, of the state and then of the outputs, by their number.

    They are the same on several devices, but what the engine gives is typed as varying
    over these. So they are computed apart; nothing that they read varies.
    """
    outs = [plan.program.outs[i] for i in which]
    eqns = needed(plan.program.eqns, outs)
    own = [i for i in which if i < len(state)]

    def body(old: Any, x: Any) -> Any:
        now = [old.get(i, a) for i, a in enumerate(state)]
        args = *plan.program.held, *consts, *now, *x
        env = dict(zip(plan.program.ins, args, strict=True))
        run(eqns, env, rule)
        new = [jnp.asarray(read(env, v), v.aval.dtype) for v in outs]
        return dict(zip(own, new, strict=False)), new[len(own) :]

    first = {i: state[i] for i in own}
    length = None if xs else T  # it may not be symbolic
    end, ys = lax.scan(body, first, list(xs), length, reverse)
    return end | dict(zip(which[len(own) :], ys, strict=True))
