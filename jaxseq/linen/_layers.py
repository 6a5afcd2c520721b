"""Layers of a Linen module as functions of their inputs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

import jaxseq
from jaxseq._base.dropout import is_zero
from jaxseq._base.dtypes import is_float


def cast(tree: Any, dtype: Any) -> Any:
    """Floats in that dtype, if it is given."""
    one = lambda a: a.astype(dtype) if dtype is not None and is_float(a) else a
    return jax.tree.map(one, tree)


def all_zero(rates: Any) -> bool:
    return all(map(is_zero, jax.tree.leaves(rates)))


def keys_of(key: Any, n: int) -> Any:
    return [None] * n if key is None else jax.random.split(key, n)


def layer(module: Any, weights: Any, key: Any, options: Any) -> Callable[..., Any]:
    """A layer over time, in both directions if the module is; a key if it draws."""
    if module.bidirectional:
        both = zip(weights, keys_of(key, 2), strict=True)
        both = (one_way(module, *each, options) for each in both)
        return partial(jaxseq.bidirectional, *both, merge=module.merge)
    return one_way(module, weights, key, options)


def one_way(module: Any, weights: Any, key: Any, options: Any) -> Callable[..., Any]:
    if key is None and all_zero(module.zoneout):
        return partial(module._sequence, weights, **options)
    return partial(
        jaxseq.cell_dropout,
        module._cell,
        weights,
        recurrent_dropout=module.recurrent_dropout,
        zoneout=module.zoneout,
        key=key,
        deterministic=key is None,
        **options,
    )


def layer_step(module: Any, weights: Any) -> Callable[..., Any]:
    """One step of a layer, as in evaluation: `(x, state) -> (state, y)`."""
    step = partial(module._step, weights)
    if not all_zero(module.zoneout):
        update = jaxseq.zoneout(module._cell, module.zoneout).update
        step = partial(jaxseq.cell_step, update, jaxseq.CellParams(*weights))
    return lambda x, state, **options: step(state, x, **options)
