"""What is known of one step, found on its jaxpr."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxseq._engine.alone import runs_alone
from jaxseq._engine.chain import Chain, chain_of, needed, product_p


@dataclass(frozen=True, eq=False)
class Step:
    """What one step does, in leaves.

    It takes arrays of the shapes given here: rows, of an update, or the whole arrays
    of a scan's body. What lies in front of these shapes is a batch. Both chains give
    the new state, the outputs, then of each matrix that is called what its product
    came to and what it read. Where a part of z_x and a product are read by their sum
    only, that is what the product of `summed` stands for; it does not read that part.
    """

    name: str
    tree: Any  # of the state
    widths: tuple[tuple[int, int], ...]  # (I, O) of each matrix
    sizes: tuple[int, ...]  # elements of each matrix, of its blocks only
    called: tuple[int, ...]  # matrices that the update calls
    chain: Chain  # (z_x, state, extra) -> (state, ys, z, lefts)
    summed: Chain
    recall: Chain  # that of the lefts alone
    sums: tuple[int | None, ...]  # of each part of z_x the matrix it is added to
    z_x: tuple[Any, ...]  # shapes and dtypes
    state: tuple[Any, ...]
    extra: tuple[Any, ...]
    ys: tuple[Any, ...]
    tells: tuple[int | None, ...]  # of each output the part of the state that it is
    z: tuple[Any, ...]  # of each matrix that is called
    lefts: tuple[Any, ...]
    precisions: tuple[Any, ...]  # of the product with each matrix
    map_precisions: tuple[Any, ...]  # of each input map
    jaxpr: Jaxpr
    has_effects: bool
    alone: bool  # whether `recall` has to run step by step
    held: int = 0  # how many of `extra`, at its end, the update closes over
    on_mesh: bool = False  # these belong to the mesh where it was traced
    varied: "Step | None" = None  # the same on rows that vary over axes of `shard_map`

    @property
    def is_complex(self) -> bool:
        parts = (*self.z_x, *self.extra)
        return any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in parts)

    def left_part(self, i: int) -> int | None:
        """The part of the state that the i-th product reads as it is, if y tells it."""
        left = self.chain.outvars[i - len(self.called)]
        n = len(self.z_x)
        for p in self.tells:
            if p is not None and self.chain.invars[n + p] is left:
                return p
        return None


def step_from(jaxpr: Jaxpr, z_x: Any, state: Any, extra: Any, **more: Any) -> Step:
    """The step of a jaxpr (z_x, state, extra) -> (state, ys) with products in it."""
    products = {e.params["k"]: e for e in jaxpr.eqns if e.primitive is product_p}
    called = tuple(sorted(products))
    sums, eqns = _sums(jaxpr, products, len(z_x)), jaxpr.eqns
    z = {k: e.outvars[0] for k, e in products.items()}
    instead: dict[int, list[Any]] = {}
    for k, add in sums.values():
        z[k] = add.outvars[0]
        e = products[k]
        instead |= {id(e): [e.replace(outvars=[z[k]])], id(add): []}
    eqns = [new for e in eqns for new in instead.get(id(e), [e])]
    lefts = [products[k].invars[0] for k in called]
    results = [*jaxpr.outvars, *(z[k] for k in called), *lefts]
    of = lambda v: jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
    new, ys = jaxpr.outvars[: len(state)], jaxpr.outvars[len(state) :]
    return Step(
        called=called,
        chain=chain_of(jaxpr.replace(outvars=results)),
        summed=chain_of(jaxpr.replace(eqns=eqns, outvars=results)),
        recall=chain_of(jaxpr.replace(eqns=eqns, outvars=lefts)),
        sums=tuple(sums[i][0] if i in sums else None for i in range(len(z_x))),
        z_x=tuple(z_x),
        state=tuple(state),
        extra=tuple(extra),
        ys=tuple(map(of, ys)),
        tells=tuple(new.index(v) if v in new else None for v in ys),
        z=tuple(of(z[k]) for k in called),
        lefts=tuple(map(of, lefts)),
        jaxpr=jaxpr,
        has_effects=bool(jaxpr.effects),
        alone=any(map(runs_alone, needed(eqns, lefts))),
        **more,
    )


def _sums(jaxpr: Jaxpr, products: Any, n_x: int) -> dict[int, tuple[int, Any]]:
    """Of parts of z_x that are read in a sum with a product: that, and its equation.

    That sum is the one reader of both, so the step depends on nothing else of them.
    """
    readers: dict[Any, list[Any]] = {}
    for e in jaxpr.eqns:
        for v in e.invars:
            if type(v) is not Literal:
                readers.setdefault(v, []).append(e)
    for v in jaxpr.outvars:
        if type(v) is not Literal:
            readers.setdefault(v, []).append(None)
    found: dict[int, tuple[int, Any]] = {}
    for i, x in enumerate(jaxpr.invars[:n_x]):
        adds = readers.get(x, [])
        for k, e in products.items():
            others = readers.get(e.outvars[0], [])
            is_one = len(adds) == len(others) == 1 and adds[0] is others[0] is not None
            if is_one and adds[0].primitive.name == "add" and _alike(x, e.outvars[0]):
                found[i] = k, adds[0]
    return found


def _alike(a: Any, b: Any) -> bool:
    """Whether two values have one shape: `add` takes a scalar beside an array too."""
    return (a.aval.shape, a.aval.dtype) == (b.aval.shape, b.aval.dtype)


# What stands for a step among the parameters of an equation. JAX keeps parameters in
# caches, and so all that they refer to, but refers to jaxprs weakly.
_of_step: WeakKeyDictionary[Step, Any] = WeakKeyDictionary()
_step_of: WeakKeyDictionary[ClosedJaxpr, Step] = WeakKeyDictionary()


def jaxpr_of(step: Step) -> ClosedJaxpr:
    found = _of_step.get(step, lambda: None)()
    if found is None:
        found = ClosedJaxpr(step.jaxpr, ())
        _of_step[step], _step_of[found] = ref(found), step
    return found


def step_by(jaxpr: ClosedJaxpr) -> Step:
    return _step_of[jaxpr]
