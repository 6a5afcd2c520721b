"""Functions as equations in order: traced, freed of calls, and run again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxseq._engine.chain import needed

# calls that only group equations
CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"})


class Program(NamedTuple):
    """A jaxpr, whose constants are the first of its variables."""

    ins: list[Var]
    eqns: list[JaxprEqn]
    outs: list[Any]
    held: tuple[Any, ...] = ()  # values of the first, which calls in it closed over


Rule = Callable[[JaxprEqn, list[Any]], Sequence[Any]]


def program_of(jaxpr: Any) -> Program:
    ins = [*jaxpr.constvars, *jaxpr.invars]
    return Program(ins, list(jaxpr.eqns), list(jaxpr.outvars))


def inlined(program: Program) -> Program:
    """The same program without calls."""

    def rule(e: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        if e.primitive.name not in CALLS:
            return bound(e, values)
        return within(e, values, rule)

    return traced_again(lambda *args: results(program, args, rule), program)


def within(e: JaxprEqn, values: Sequence[Any], rule: Rule) -> list[Any]:
    """What a call gives, by its own equations."""
    inner: Any = e.params.get("jaxpr", e.params.get("call_jaxpr"))
    jaxpr: Jaxpr = getattr(inner, "jaxpr", inner)
    operands = [*getattr(inner, "consts", ()), *values]
    return results(program_of(jaxpr), operands, rule)


def traced_again(f: Callable[..., Any], program: Program) -> Program:
    """The program of `f`, which takes what a program takes."""
    closed = jax.make_jaxpr(f)(*map(aval, program.ins))
    held, jaxpr = (*closed.consts, *program.held), closed.jaxpr
    eqns = needed(jaxpr.eqns, jaxpr.outvars)
    return program_of(jaxpr.replace(eqns=eqns))._replace(held=held)


def bound(e: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """What an equation gives for these values."""
    with as_written(e):
        out = e.primitive.bind(*values, **e.primitive.get_bind_params(e.params))
    return out if e.primitive.multiple_results else [out]


@contextmanager
def as_written(e: JaxprEqn) -> Iterator[None]:
    """A context in which equations get the source line, scope and settings of `e`."""
    source = e.source_info
    scope = source_info_util.user_context(
        source.traceback, name_stack=source.name_stack
    )
    with scope, e.ctx.manager:
        yield


def read(env: dict[Any, Any], v: Any) -> Any:
    return v.val if type(v) is Literal else env[v]


def run(
    eqns: Iterable[JaxprEqn], env: dict[Any, Any], rule: Rule = bound
) -> dict[Any, Any]:
    """Adds the results of equations to the values of variables."""
    for e in eqns:
        values = rule(e, [read(env, v) for v in e.invars])
        env.update(zip(e.outvars, values, strict=True))
    return env


def results(program: Program, args: Sequence[Any], rule: Rule = bound) -> list[Any]:
    """What a program gives for these values of its variables."""
    env = run(program.eqns, dict(zip(program.ins, args, strict=True)), rule)
    return [read(env, v) for v in program.outs]


def read_by(eqns: Iterable[JaxprEqn], outs: Sequence[Any] = ()) -> list[Var]:
    """The variables that equations read and none of them makes."""
    eqns = list(eqns)
    made = {v for e in eqns for v in e.outvars}
    atoms = [v for e in eqns for v in e.invars] + list(outs)
    some = (v for v in atoms if type(v) is not Literal and v not in made)
    return list(dict.fromkeys(some))


def aval(v: Any) -> Any:
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
