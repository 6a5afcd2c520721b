"""A function with matrix products in it, as stages with the products between them.

What an update asks of its matrices is traced as the primitive `product`. Whoever runs
a chain says what such a product is: one of `w_h`, of its transpose, or of a kernel.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Literal,
    Primitive,
    Var,
    jaxpr_as_fun,
)
from jax.interpreters import batching
from jax.interpreters.ad import primitive_jvps

from jaxseq._base.check import check
from jaxseq._engine.overwritten import may_be_overwritten, reads_of, variables

# `a` (..., I) times matrix `k` is (..., width)
product_p = Primitive("jaxseq_product")


def product(k: int, a: Array, width: int) -> Array:
    return product_p.bind(a, k=k, width=width)


@product_p.def_abstract_eval
def _(a: Any, *, k: int, width: int) -> Any:
    return a.update(shape=(*a.shape[:-1], width))


def _batched(args: Any, dims: Any, *, k: int, width: int) -> tuple[Array, int]:
    (a,), (dim,) = args, dims
    return product(k, jnp.moveaxis(a, dim, 0), width), 0


batching.primitive_batchers[product_p] = _batched


def _differentiated(*args: Any, **params: Any) -> Any:
    expected = "each matrix to be called at its top level"
    check(False, "update", expected, "inside a derivative")


primitive_jvps[product_p] = _differentiated


class Stage(NamedTuple):
    f: Callable[..., Any] | None
    reads: tuple[Var, ...]
    writes: tuple[Var, ...]
    product: JaxprEqn | None  # the one that follows


class Chain(NamedTuple):
    invars: tuple[Var, ...]
    outvars: tuple[Any, ...]
    stages: tuple[Stage, ...]


def chain_of(jaxpr: Jaxpr) -> Chain:
    """The stages of a jaxpr without constants; what nothing needs is left out.

    A stage has what the next product needs, and what reads that and no product to
    come. What it needs of the stages before it is computed anew where it might be
    overwritten.
    """
    left = needed(jaxpr.eqns, jaxpr.outvars)
    products = [e for e in left if e.primitive is product_p]
    left = [e for e in left if e.primitive is not product_p]
    parts: list[tuple[list[JaxprEqn], JaxprEqn | None]] = []
    before: list[JaxprEqn] = []
    new: list[Var] = []
    results = lambda eqns: [v for e in eqns for v in e.outvars]
    for i, product in enumerate([*products, None]):
        part, _ = _split(left, results(products[i:]))
        if product is not None:
            _, after = _split(part, results(needed(part, product.invars)))
            part = needed(part, [*product.invars, *results(after)])
        taken = set(map(id, part))
        left = [e for e in left if id(e) not in taken]
        pure = [e for e in part if not e.effects]
        if before and may_be_overwritten(part, new):
            part = needed([*before, *part], results(part))
        parts.append((part, product))
        before += pure
        new = product.outvars if product is not None else []
    stages = []
    later: set[Any] = set(variables(jaxpr.outvars))
    for part, product in reversed(parts):
        if product is not None:
            later |= variables(product.invars)
        made = [v for e in part for v in e.outvars]
        writes = tuple(v for v in made if v in later)
        reads = tuple(reads_of(part))
        f = None
        if part:
            inner = jaxpr.replace(
                constvars=[], invars=list(reads), outvars=list(writes), eqns=part
            )
            f = jaxpr_as_fun(ClosedJaxpr(inner, ()))
        later |= set(reads)
        stages.append(Stage(f, reads, writes, product))
    return Chain(tuple(jaxpr.invars), tuple(jaxpr.outvars), tuple(reversed(stages)))


def in_order(chain: Chain, pairs: Iterable[tuple[int, int]]) -> Chain:
    """The chain, in which an array is read no more once it may be overwritten.

    A pair is the number of an argument and that of the result that is written in its
    place. If a stage after the one that makes the result reads the argument, it hands
    the result on. Otherwise XLA copies all steps of the array at each of them.
    """
    stages, outvars = list(chain.stages), list(chain.outvars)
    for i, o in pairs:
        old, new = chain.invars[i], outvars[o]
        last = max((n for n, s in enumerate(stages) if old in s.reads), default=0)
        if any(new in made_by(s) for s in stages[:last]):
            stage, outvars[o] = stages[last], Var(new.aval)
            reads = tuple(dict.fromkeys((*stage.reads, new)))
            f = partial(_handed_on, stage.f, len(stage.reads), reads.index(new))
            writes = (*stage.writes, outvars[o])
            stages[last] = stage._replace(f=f, reads=reads, writes=writes)
    return chain._replace(stages=tuple(stages), outvars=tuple(outvars))


def made_by(stage: Stage) -> tuple[Var, ...]:
    product = () if stage.product is None else stage.product.outvars
    return (*stage.writes, *product)


def _handed_on(f: Any, reads: int, at: int, *args: Any) -> list[Any]:
    return [*f(*args[:reads]), args[at]]


def needed(eqns: Any, outvars: Any) -> list[JaxprEqn]:
    """The equations that the variables depend on, or that have an effect."""
    wanted, kept = variables(outvars), []
    for e in reversed(eqns):
        if wanted & set(e.outvars) or e.effects:
            wanted |= variables(e.invars)
            kept.append(e)
    return kept[::-1]


def _split(eqns: Any, outvars: Any) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
    """The equations that do not depend on the variables, and the others."""
    later = set(outvars)
    of: tuple[list[JaxprEqn], list[JaxprEqn]] = ([], [])
    for e in eqns:
        depends = bool(later & {*variables(e.invars), *e.outvars})
        later |= set(e.outvars) if depends else set()
        of[depends].append(e)
    return of


def trace(f: Callable[..., Any], *args: Any) -> tuple[Chain, list[Any], Any]:
    """The chain of `f` for arrays of the shapes of `args`, and what `f` returns.

    The chain takes leaves, behind them the arrays that are returned with it: those
    that a derivative of its own closes over, for one. Of what `f` returns there are
    shapes.
    """
    closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
    jaxpr = closed.jaxpr
    invars = [*jaxpr.invars, *jaxpr.constvars]
    return chain_of(jaxpr.replace(constvars=[], invars=invars)), closed.consts, out


def run(
    chain: Chain,
    args: Any,
    product: Callable[[int, Array], Array],
    call: Callable[[Any], Any] = lambda f: f,
) -> list[Array]:
    """Evaluates a chain; `call` wraps what is between two products."""
    env: dict[Any, Any] = dict(zip(chain.invars, args, strict=True))
    read = lambda a: a.val if type(a) is Literal else env[a]
    for stage in chain.stages:
        if stage.f is not None:
            values = call(stage.f)(*map(read, stage.reads))
            env.update(zip(stage.writes, values, strict=True))
        if stage.product is not None:
            (a,), (out,) = stage.product.invars, stage.product.outvars
            env[out] = product(stage.product.params["k"], read(a))
    return [read(a) for a in chain.outvars]
