"""`vmap` of a run in time: one more axis of the batch, or one of members."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._engine.primitive import bind, results, spec_of
from jaxseq._engine.shapes import features, of_one_member


def batched(args: Any, dims: Any, **params: Any) -> Any:
    """An axis of rows goes into the batch; others are of members."""
    kind, members = params["kind"], params["members"]
    sizes = [a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None]
    tree, spec = params["tree"], spec_of(params)
    behind = jax.tree.leaves(features(kind, spec, tree.unflatten(args)))
    weights = any(f < 0 and d is not None for f, d in zip(behind, dims, strict=True))
    summed = kind == "backward" and any(len(a.shape) > 1 for a in spec.step.extra)
    if weights or summed or members:
        axes = tuple(dims)
        out = bind(args, {**params, "members": (*members, axes)})
        return out, [0] * len(out)
    if spec.batch_first and _is_time_first(tree, args, dims):
        time_first = params["spec"]._replace(batch_first=False)
        return batched(args, dims, **{**params, "spec": time_first})

    def fold(a: Array, dim: Any, behind: int) -> Array:
        if behind < 0:
            return a
        if dim is None:
            a = jnp.broadcast_to(a, (sizes[0], *a.shape))
            dim = 0
        return jnp.moveaxis(a, dim, a.ndim - 1 - behind)

    out = bind(list(map(fold, args, dims, behind)), params)
    shapes, _ = of_one_member(args, [tuple(dims)])
    one = [jax.ShapeDtypeStruct(s, a.dtype) for s, a in zip(shapes, args, strict=True)]
    leaves = results(one, params)[0]
    return out, [
        a.ndim - 1 - len(leaf.features) for a, leaf in zip(out, leaves, strict=True)
    ]


def _is_time_first(tree: Any, args: Any, dims: Any) -> bool:
    """Whether `vmap` adds the first axis of rows to x, and adds it behind time.

    Without rows both layouts are the same, so the run can go on time first.
    """
    x, dim = (tree.unflatten(each)[1].x[0] for each in (args, dims))
    return x.ndim == 3 and dim not in (None, 0)
