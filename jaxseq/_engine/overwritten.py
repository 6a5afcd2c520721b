"""Keeps XLA from overwriting an array that a stage still reads.

On a CPU a stage is a call that XLA does not inline. A kernel in it may write its result
into the buffer of an argument, if nothing reads the argument later and the kernel reads
it element by element. When two arguments of the call are the same array, for example
`max(a, a)` and `a`, or `tanh(a)` computed twice, XLA checks how the kernel reads one of
them and not the other (seen with jaxlib 0.10.2), and the result can be wrong.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from jax.extend.core import JaxprEqn, Literal, Var, jaxprs_in_params

ELEMENTWISE = frozenset(
    "abs add add_any and broadcast_in_dim clamp convert_element_type cos div eq erf "
    "exp expm1 ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg "
    "not or pow reduce_precision rsqrt select_n sign sin sqrt square stop_gradient "
    "sub tanh".split()
)


def may_be_overwritten(stage: Sequence[JaxprEqn], new: Sequence[Var]) -> bool:
    """Whether a kernel might overwrite an argument that it reads at other places.

    This is so if an operation that is not elementwise reads an argument, and a result
    that depends on it has the size of that argument. The arguments `new`, results of
    the product just before the stage, are not the same array as any other.
    """
    arguments = set(reads_of(stage)) - set(new)
    for i, e in enumerate(stage):
        sizes = {_bytes(v) for v in variables(e.invars) & arguments}
        if sizes and not _is_elementwise(e):
            made = set(e.outvars)
            for other in stage[i + 1 :]:
                if made & variables(other.invars):
                    made |= set(other.outvars)
            if sizes & {_bytes(v) for v in made}:
                return True
    return False


def reads_of(eqns: Sequence[JaxprEqn]) -> list[Var]:
    """The variables that equations read and do not make."""
    made = {v for e in eqns for v in e.outvars}
    free = [v for e in eqns for v in e.invars if type(v) is not Literal]
    return list(dict.fromkeys(v for v in free if v not in made))


def variables(atoms: Any) -> set[Any]:
    return {a for a in atoms if type(a) is not Literal}


def _is_elementwise(e: JaxprEqn) -> bool:
    inside = [*jaxprs_in_params(e.params)]
    if inside:
        return all(_is_elementwise(e) for jaxpr in inside for e in jaxpr.eqns)
    return e.primitive.name in ELEMENTWISE


def _bytes(v: Any) -> int:
    return prod(v.aval.shape) * v.aval.dtype.itemsize
