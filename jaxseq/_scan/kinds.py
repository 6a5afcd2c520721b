"""What each value of a scan's body depends on."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from jax.extend.core import JaxprEqn, Literal

from jaxseq._engine.alone import runs_alone
from jaxseq._scan.program import Program


class Kind(IntEnum):
    FIXED = 0  # the same at every step: computed once
    INPUT = 1  # of x_t too: computed for many steps at a time
    LOOP = 2  # of the state


def kinds_of(program: Program, n_fixed: int, n_state: int) -> Callable[[Any], Kind]:
    """A function that gives the kind of a variable, literal or equation.

    The variables of the program are the fixed ones, the state and x_t, in this order.
    """
    first = [Kind.FIXED] * n_fixed + [Kind.LOOP] * n_state
    rest = [Kind.INPUT] * (len(program.ins) - len(first))
    kinds: dict[Any, Kind] = dict(zip(program.ins, first + rest, strict=True))

    def of(v: Any) -> Kind:
        if isinstance(v, JaxprEqn):
            kind = max(map(of, v.invars), default=Kind.FIXED)
            return Kind.LOOP if kind == Kind.INPUT and runs_alone(v) else kind
        return Kind.FIXED if type(v) is Literal else kinds[v]

    for e in program.eqns:
        kinds.update(dict.fromkeys(e.outvars, of(e)))
    return of
