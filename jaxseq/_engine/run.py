"""A run in time, forward or backward, by the backend that its platform has for it."""

from typing import Any

import jax
from jax import Array
from jax.interpreters import batching

from jaxseq._engine.backends import chosen
from jaxseq._engine.lowering import register
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.primitive import as_params, bind, run_p, spec_of
from jaxseq._engine.recall import recalled
from jaxseq._engine.shapes import outputs
from jaxseq._engine.types import (
    Devices,
    Gradients,
    Inputs,
    Spec,
    Weights,
    as_written,
)
from jaxseq._engine.vmap import batched


def forward(spec: Spec, weights: Weights, inputs: Inputs) -> Any:
    """State and outputs; if `spec.save`, what was saved and what `recalled` gives."""
    return _bind("forward", spec, (weights, inputs))


def backward(spec: Spec, *args: Any) -> Gradients:
    """Gradients, from (weights, x, saved, masks, d_end, d_ys)."""
    return _bind("backward", spec, args)


def _bind(kind: str, spec: Spec, args: Any) -> Any:
    leaves, tree = jax.tree.flatten(args)
    out = jax.tree.structure(outputs(kind, spec, args))
    params = {"kind": kind, "tree": tree, "members": (), **as_params(spec)}
    return out.unflatten(bind(leaves, params))


def _run(platform: str, devices: Devices, params: Any, *leaves: Array) -> list[Array]:
    kind, tree, members = (params[k] for k in ("kind", "tree", "members"))
    spec = spec_of(params)

    def one(*leaves: Any) -> list[Array]:
        args = tree.unflatten(leaves)
        backend = chosen(platform, devices, spec, args)
        out: Any = getattr(backend, kind)(devices, spec, *args)
        if kind == "forward" and spec.save:
            _, ys, saved = out
            weights, inputs = args
            out = *out, recalled(spec, weights, inputs, ys, saved)
        return jax.tree.leaves(out)

    run: Any = one
    for axes in members:
        run = jax.vmap(run, axes)
    with jax.sharding.use_abstract_mesh(NO_MESH), as_written(spec):
        return run(*leaves)


batching.primitive_batchers[run_p] = batched
register(run_p, _run)
