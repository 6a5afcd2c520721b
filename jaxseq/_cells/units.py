"""Weights with an axis of gates, whose units may be split over devices.

The gates of one unit then lie side by side, on one device: a split of the hidden units
is a split of what the update reads, and a step sends no more than h.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._engine.params import CellParams


def gates_of(z: Array, gates: int, by_unit: bool) -> list[Array]:
    """The gates in a row of all, `(gates * H,)`, each `(H,)`."""
    return list(z.reshape(-1, gates).T) if by_unit else jnp.split(z, gates)


def in_units(update: Any, params: Any) -> tuple[Any, CellParams]:
    """An update and its weights, as the engine takes them.

    Those of a built-in cell may have an axis of gates, `(D, gates, H)`. They are put in
    the order of the units, which sends nothing where the units are split over devices.
    """
    own = CellParams(*params)
    if type(params) is CellParams or own.w_x.ndim == 2:
        return update, own
    has_gates = lambda w: w.shape[-2:] == own.w_x.shape[-2:]
    turned = lambda w: w.swapaxes(-1, -2).reshape(*w.shape[:-2], -1)
    one = lambda w: turned(w) if has_gates(w) else w
    return replace(update, by_unit=True), jax.tree.map(one, own)
