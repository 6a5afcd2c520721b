"""Zoneout of any cell: units of the state that keep their old values."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxseq._base.check import check
from jaxseq._base.dropout import is_zero
from jaxseq._base.rates import rates_of
from jaxseq._cells.any import check_cell
from jaxseq._cells.cell import Cell
from jaxseq._cells.variants import first_of_equals


def zoneout(cell: Cell, rate: ArrayLike | Any) -> Cell:
    """Makes of a cell that of an evaluation after training with zoneout.

    Args:
        cell: a `Cell`, such as `jaxseq.LSTM`.
        rate: probability in [0, 1) that a unit kept its old value in training; or a
            tree of such like the state, such as `LSTMState(0.05, 0.5)`.

    Returns:
        A `Cell` with the same weights and state, whose new state is `rate` times the
        old and `1 - rate` times what the cell makes of it. For training see
        `cell_dropout`.

    Raises:
        ValueError: if a rate is out of range; in a run, if it is not like the state.

    Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
    Activations", 2017, https://arxiv.org/abs/1606.01305.

    Example:
        >>> cell = jaxseq.zoneout(jaxseq.GRU, 0.1)
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> params, h = jaxseq.CellParams(*params), cell.zeros(params, 5)
        >>> h, y = jaxseq.cell(cell.update, params, jnp.ones((5, 20, 3)), h)
        >>> y.shape
        (5, 20, 8)
    """
    check_cell(cell)
    expected = "a probability, or a NamedTuple of them like the state"
    check(not isinstance(rate, (list, dict)), "rate", expected, type(rate).__name__)
    rates = rates_of(rate, rate, "rate")
    return mean_of(cell, rates, jax.tree.structure(rate))


def mean_of(cell: Cell, rates: tuple[Any, ...], tree: Any) -> Cell:
    """The cell with the mean over zoneout."""
    if all(map(is_zero, rates)):
        return cell
    return cell._replace(update=first_of_equals(ZoneoutMean(cell.update, rates, tree)))


@dataclass(frozen=True)
class ZoneoutMean:
    """An update with the mean over zoneout; two with the same fields are equal."""

    update: Any
    rates: tuple[Any, ...]
    tree: Any  # of the rates

    def __call__(self, z_x: Any, state: Any, w_h: Any, extra: Any) -> Any:
        new = self.update(z_x, state, w_h, extra)
        rates = rates_of(self.tree.unflatten(self.rates), state, "rate")
        mean = lambda p, old, new: new + jnp.asarray(p, old.dtype) * (old - new)
        return of_parts(mean, rates, state, new)


def of_parts(f: Any, rates: tuple[Any, ...], old: Any, new: Any) -> Any:
    """The new state, where a rate is not 0 by `f(rate, old, new)`."""
    leaves, tree = jax.tree.flatten(new)
    if tree != jax.tree.structure(old):
        return new  # the engine says what is wrong
    parts = zip(rates, jax.tree.leaves(old), leaves, strict=True)
    return tree.unflatten([n if is_zero(p) else f(p, o, n) for p, o, n in parts])
