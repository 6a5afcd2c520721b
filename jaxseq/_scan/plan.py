"""Which equations of a body run once, for many steps at a time, and in the loop."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxseq._engine.chain import needed
from jaxseq._engine.chain import product as chain_product
from jaxseq._engine.step import Step, step_from
from jaxseq._engine.update import width_in, width_out
from jaxseq._scan.kinds import Kind, kinds_of
from jaxseq._scan.products import times_p
from jaxseq._scan.program import Program, aval, read, read_by, run

# cheap to compute but large: computed again where they are read
SPREAD = frozenset({"broadcast_in_dim", "iota"})
# too cheap to be computed ahead of the loop, though they depend on x_t alone
CHEAP = SPREAD | set(
    "abs add add_any and clamp concatenate convert_element_type copy eq ge gt"
    " integer_pow le lt max min mul ne neg not or reshape rev select_n sign slice"
    " split square squeeze stop_gradient sub transpose".split()
)


class Plan(NamedTuple):
    """The parts of a program (fixed..., state..., x...) -> (state..., ys...)."""

    program: Program
    sizes: tuple[int, int]  # how many variables are fixed, and how many the state
    fixed: list[Any]  # fixed values that the other equations read
    early: list[JaxprEqn]  # those that run for many steps at a time
    inputs: list[Any]  # what the engine is given of x_t, or of what `early` makes of it
    w_x: list[Any]  # for each input its fixed matrix; None leaves the input as it is
    w_h: list[Any]  # the fixed matrices of the products in the loop
    extra: list[Any]  # other fixed values that the loop reads
    maps: list[Any]  # the inputs times w_x, which the loop reads
    loop: list[JaxprEqn]
    step: Step  # (maps, state, extra) -> (state, ys)
    halves: bool = False  # it is for half of the rows, and run once for each half


def is_map(e: JaxprEqn) -> bool:
    """Whether an equation of x_t alone runs for many steps at a time."""
    return _name(e) not in CHEAP


def plan_of(program: Program, n_fixed: int, n_state: int, tree: Any) -> Plan:
    """The plan of a program, after `normalised` and `summed`."""
    of = kinds_of(program, n_fixed, n_state)
    spread = [e for e in program.eqns if of(e) == Kind.FIXED and _name(e) in SPREAD]
    heavy = [e for e in program.eqns if of(e) == Kind.INPUT and is_map(e)]
    anew = set(map(id, spread))
    mine = [e for e in program.eqns if of(e) == Kind.INPUT or id(e) in anew]
    early = needed(mine, [v for e in heavy for v in e.outvars])
    done = {v for e in early if id(e) not in anew for v in e.outvars}
    later = [e for e in program.eqns if of(e) != Kind.FIXED or id(e) in anew]
    loop = needed([e for e in later if not done & set(e.outvars)], program.outs)
    reads = read_by(loop, program.outs)
    hoisted = [v for v in reads if of(v) == Kind.INPUT]
    # the engine does the last products, for as many steps at a time as is best
    last = [_last_product(v, early) for v in hoisted]
    inputs = [
        v if e is None else e.invars[0] for v, e in zip(hoisted, last, strict=True)
    ]
    w_x = [None if e is None else e.invars[1] for e in last]
    early = needed(early, inputs)
    products = [e for e in loop if _is_product(e, of)]
    w_h = [e.invars[1] for e in products]
    reads += [w for w in [*w_x, *w_h] if w is not None]
    fixed = [v for v in [*reads, *read_by(early)] if of(v) == Kind.FIXED]
    others = [e for e in loop if not _is_product(e, of)]
    also = read_by(others, program.outs)
    extra = [v for v in also if of(v) == Kind.FIXED]
    how = [None if e is None else e.params["precision"] for e in last]
    maps = dict(zip(hoisted, how, strict=True))
    step = _step(program, n_fixed, n_state, loop, products, maps, extra, tree)
    return Plan(
        program,
        (n_fixed, n_state),
        list(dict.fromkeys(fixed)),
        early,
        inputs,
        w_x,
        w_h,
        extra,
        hoisted,
        loop,
        step,
    )


def _last_product(v: Any, early: list[JaxprEqn]) -> JaxprEqn | None:
    """The equation that makes `v`, if it is a product."""
    for e in early:
        if e.outvars[0] is v and e.primitive is times_p:
            return e
    return None


def _name(e: JaxprEqn) -> str:
    return e.primitive.name


def _is_product(e: JaxprEqn, of: Any) -> bool:
    """Whether it is a product of the loop with a fixed matrix."""
    return e.primitive is times_p and of(e) == Kind.LOOP


def _step(
    program: Program,
    n_fixed: int,
    n_state: int,
    loop: list[JaxprEqn],
    products: list[JaxprEqn],
    maps: dict[Any, Any],  # their precisions
    extra: list[Any],
    tree: Any,
) -> Step:
    state = program.ins[n_fixed : n_fixed + n_state]
    number = {e.outvars[0]: k for k, e in enumerate(products)}

    def on(*args: Any) -> list[Any]:
        env = dict(zip(names, args, strict=True))
        for e in loop:
            out = e.outvars[0]
            if out in number:
                left, w = read(env, e.invars[0]), e.invars[1].aval
                env[out] = chain_product(number[out], left, width_out(w))
            else:
                run([e], env)
        return [jnp.asarray(read(env, v), v.aval.dtype) for v in program.outs]

    # with nothing hoisted, something else tells how many steps there are
    nothing = jax.ShapeDtypeStruct((), jnp.bool_)
    names = [*(maps or [None]), *state, *extra]
    z_x, *others = ([aval(v) for v in part] for part in (maps, state, extra))
    avals = z_x or [nothing], *others
    closed = jax.make_jaxpr(on)(*itertools.chain(*avals))
    assert not closed.consts
    return step_from(
        closed.jaxpr,
        *avals,
        name="body",
        tree=tree,
        widths=tuple((width_in(w), width_out(w)) for w in map(_factor, products)),
        sizes=tuple(w.size for w in map(_factor, products)),
        precisions=tuple(e.params["precision"] for e in products),
        map_precisions=tuple(maps.values()) or (None,),
    )


def _factor(e: JaxprEqn) -> Any:
    return e.invars[1].aval
