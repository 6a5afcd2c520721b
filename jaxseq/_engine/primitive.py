"""A run in time as one primitive of JAX, with the types of its results."""

from typing import Any

import jax
from jax import Array
from jax.extend.core import Primitive

from jaxseq._engine.mesh import placing
from jaxseq._engine.shapes import Leaf, of_one_member, outputs
from jaxseq._engine.step import jaxpr_of, step_by
from jaxseq._engine.types import Spec, batch_of

# One primitive, so that a branch is traced only for the platform that runs it, and
# `vmap` over rows adds to the batch. Its derivative is in `rule.py`, and belongs to
# the primitive, for a `custom_jvp` does not outlive a scan that is linearized.
run_p = Primitive("jaxseq_run")
run_p.multiple_results = True


def bind(leaves: Any, params: Any) -> list[Array]:
    return run_p.bind(*leaves, **params)


def as_params(spec: Spec) -> dict[str, Any]:
    """A spec as parameters of a primitive; see `jaxpr_of`."""
    return {"update": jaxpr_of(spec.step), "spec": spec._replace(step=None)}  # pyright: ignore


def spec_of(params: Any) -> Spec:
    """The spec whose parameters `as_params` gave."""
    return params["spec"]._replace(step=step_by(params["update"]))


def results(avals: Any, params: Any) -> Any:
    """The `Leaf`s of the output, the axes of members, T and the batch."""
    kind = params["kind"]
    shapes, sizes = of_one_member(avals, params["members"])
    one = [jax.ShapeDtypeStruct(s, a.dtype) for s, a in zip(shapes, avals, strict=True)]
    args = params["tree"].unflatten(one)
    spec = spec_of(params)
    state = args[1].state if kind == "forward" else args[4]
    over_time = args[1].x if kind == "forward" else (args[5], args[2], args[1])
    T = jax.tree.leaves(over_time)[0].shape[0]
    leaves = jax.tree.leaves(outputs(kind, spec, args))
    return leaves, sizes, T, batch_of(spec.step, state)


@run_p.def_abstract_eval
def _(*avals: Any, **params: Any) -> list[Any]:
    leaves, lead, T, batch = results(avals, params)
    placed = placing(avals)

    def aval(leaf: Leaf) -> Any:
        own = (T,) if leaf.over_time else ()
        return placed(
            (*lead, *own, *(batch if leaf.batch else ()), *leaf.features), leaf.dtype
        )

    return list(map(aval, leaves))
