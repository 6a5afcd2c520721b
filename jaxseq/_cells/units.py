"""Weights with an axis of gates, so that the hidden units can be split over devices.

Inside, the gates of each unit lie side by side, so on the device of the unit: a device
computes its units from its own weights, and a step sends no more than h.
"""

from dataclasses import is_dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check
from jaxseq._cells.variants import first_of_equals
from jaxseq._engine.params import CellParams


def gates_of(z: Array, gates: int, by_unit: bool) -> list[Array]:
    """The gates `(H,)` of a row `(gates * H,)`."""
    return list(z.reshape(-1, gates).T) if by_unit else jnp.split(z, gates)


def in_units(update: Any, params: Any) -> tuple[Any, CellParams]:
    """An update and its weights, as the engine takes them.

    Weights of a built-in cell with an axis of gates, `(D, gates, H)`, are put in the
    order of the units, `(D, H * gates)`. Nothing is sent for this where the units are
    split over devices.
    """
    own = CellParams(*params)
    w_x: Any = own.w_x
    if type(params) is CellParams or getattr(w_x, "ndim", 2) == 2:
        return update, own
    gates, H = w_x.shape[-2:]
    expected = f"an axis of {gates} gates, as w_x {w_x.shape}"
    for name, w in params._asdict().items():
        if w is not None and not (name == "b_hn" and w.shape == (H,)):
            check(w.shape[-2:] == (gates, H), f"params.{name}", expected, w.shape)
    turned = lambda w: w.swapaxes(-1, -2).reshape(*w.shape[:-2], -1)
    one = lambda w: turned(w) if w.shape[-2:] == (gates, H) else w
    return first_of_equals(_by_unit(update)), jax.tree.map(one, own)


def _by_unit(update: Any) -> Any:
    """The update of a built-in cell, or one around it, for gates side by side."""
    if is_dataclass(update) and hasattr(update, "by_unit"):
        return replace(update, by_unit=True)  # pyright: ignore
    inner = getattr(update, "update", None)
    expected = "w_x of rank 2; only the built-in LSTM and GRU take an axis of gates"
    check(is_dataclass(update) and inner is not None, "params", expected, "rank 3")
    return replace(update, update=_by_unit(inner))  # pyright: ignore
