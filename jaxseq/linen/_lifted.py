"""A scan over scopes, as Flax lifts it to modules."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import broadcast, lift
from flax.core.scope import intersect_filters, is_filter_empty

import jaxseq
from jaxseq._base.by_time import one_step
from jaxseq._base.mesh import as_it_comes_out
from jaxseq.linen._draws import copied, put_back

DEFAULTS: dict[str, Any] = {
    "variable_axes": {},
    "variable_broadcast": False,
    "variable_carry": False,
    "split_rngs": {},
    "in_axes": 0,
    "out_axes": 0,
    "length": None,
    "reverse": False,
    "unroll": 1,
    "remat": None,
    "data_transform": None,
    "check_constancy_invariants": True,
}
HANDED_ON = "length", "reverse", "unroll", "remat"


def scan(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`flax.core.lift.scan`, which runs where variables may have to be made.

    Flax names the class that it makes of a module by the name of this function.
    """
    theirs = lift.scan(fn, **options)
    options = DEFAULTS | options
    left = options["variable_axes"] or options["data_transform"] is not None
    if left or broadcast in jax.tree.leaves(options["out_axes"]):
        return theirs
    made, shared = scan_of_made(fn, **options), options["variable_broadcast"]

    def run(scopes: Any, carry: Any, *args: Any) -> Any:
        may = [intersect_filters(s.mutable, shared) for s in jax.tree.leaves(scopes)]
        all_made = all(map(is_filter_empty, may))
        return (made if all_made else theirs)(scopes, carry, *args)

    return run


def scan_of_made(
    fn: Callable[..., Any], *, written: bool = True, **options: Any
) -> Callable[..., Any]:
    """A scan of scopes whose variables are there; what it writes is kept if `written`.

    The options are those of `flax.core.lift.scan`, but for what that alone does, and
    the `remat` of `jaxseq.scan`.
    """
    options = DEFAULTS | options
    in_axes, out_axes = options["in_axes"], options["out_axes"]
    splits = options["split_rngs"]

    def inner(
        scope_of: Any,
        variables_of: Any,
        variables: Any,
        rngs: Any,
        carry: Any,
        *args: Any,
    ) -> Any:
        shared, carried = variables
        over = jax.tree.map(_to_front, in_axes, args)
        sizes = [a.shape[0] for a in jax.tree.leaves(over)]
        T: Any = sizes[0] if options["length"] is None and sizes else options["length"]
        split = partial(lift.tree_map_rngs, lambda key: jax.random.split(key, T))
        pairs = zip(rngs, splits.values(), strict=True)
        keys = [split(group) if yes else None for group, yes in pairs]

        def body(moving: Any, now: Any) -> Any:
            (carried, carry), (over, keys) = moving, now
            given = jax.tree.map(
                lambda axis, a, now: a if axis is broadcast else now,
                in_axes, args, over,
            )  # fmt: skip
            for some, before in zip(drawn, begun, strict=True):
                put_back(some, before)  # however often this is traced
            mine = (b if a is None else a for a, b in zip(keys, rngs, strict=True))
            scope = scope_of((shared, carried), tuple(mine))
            carry, y = fn(scope, carry, *given)
            # those that may not be written are not among the new ones
            pairs = zip(carried, variables_of(scope)[1], strict=True)
            return (tuple({**old, **new} for old, new in pairs), carry), y

        drawn = [s.rng_counters for s in jax.tree.leaves(scope_of(variables, rngs))]
        begun = [copied(some) for some in drawn]
        moving, now = (carried, carry), (over, keys)
        first = lambda moving, *now: body(moving, now)[0]
        if jax.tree.leaves(rngs) and options["check_constancy_invariants"]:
            # Flax has traced the body once when it does so for the loop
            jax.eval_shape(first, moving, *one_step(now))
            begun = [copied(some) for some in drawn]
        moving = as_it_comes_out(first, moving, *one_step(now))
        how = {name: options[name] for name in HANDED_ON}
        (new, carry), ys = jaxseq.scan(body, moving, now, **how)
        out = jax.tree.map(_from_front, out_axes, ys)
        return (carry, out), (shared, new if written else carried)

    groups = options["variable_broadcast"], options["variable_carry"]
    return lift.pack(inner, groups, groups, tuple(splits), name="scan")


def _to_front(axis: Any, tree: Any) -> Any:
    """Arrays with time in front; nothing of what has no time."""
    if axis is broadcast:
        return ()
    return jax.tree.map(lambda a: jnp.moveaxis(a, axis, 0) if axis else a, tree)


def _from_front(axis: int, tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, axis) if axis else a, tree)
