"""Dropout, recurrent dropout and zoneout of any cell over time."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import as_array, check, check_flag, check_key
from jaxseq._base.dropout import drop
from jaxseq._base.dtypes import is_float
from jaxseq._base.rates import check_rate_key, rates_of
from jaxseq._cells.any import cell_of, check_cell
from jaxseq._cells.cell import Cell
from jaxseq._cells.masked import Dropping, kept_by, old_of, with_masks
from jaxseq._cells.units import in_units
from jaxseq._cells.variants import first_of_equals
from jaxseq._cells.zoneout import mean_of
from jaxseq._engine.door import sequence


def cell_dropout(
    cell: Cell,
    params: Any,
    x: Any,
    state: Any = None,
    *,
    dropout: ArrayLike | Any = 0.0,
    recurrent_dropout: ArrayLike | Any = 0.0,
    zoneout: ArrayLike | Any = 0.0,
    key: Array | None = None,
    deterministic: bool = False,
    start: Any = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    remat: int | None = None,
    implementation: str | None = None,
) -> tuple[Any, Array]:
    """Runs a cell over time with dropout, recurrent dropout and zoneout.

    A rate is a probability in [0, 1), which may be traced, or a tree of such.

    Args:
        cell: a `Cell`, such as `jaxseq.LSTM` or one of `lstm_cell`.
        params: its weights, such as `LSTMParams` or `CellParams`.
        x: inputs `(..., T, D)`, in the dtype of `params`; or a tree of such.
        state: initial state, parts `(..., F)`. If None, the run begins at `start`.
        dropout: rate at which a feature of a sequence in `x` is zero, at all of its
            steps; the others are scaled by 1 / (1 - rate). Or a tree like `x`; one
            rate is for all floats in it.
        recurrent_dropout: rate at which a feature of what a recurrent matrix
            multiplies is zero, at all steps of a sequence; the others are scaled. Or
            a tree like `params.w_h`, such as `Projected(0.25, 0.0)`; one rate is for
            each matrix, with masks of their own.
        zoneout: rate at which a unit of the state keeps its old value, drawn anew at
            each step. Or a tree like the state, such as `LSTMState(0.05, 0.5)`.
        key: random key; needed only in training, if a rate is not 0.
        deterministic: whether nothing is drawn, as in evaluation: nothing is dropped,
            and the state is the mean over zoneout, as that of `jaxseq.zoneout`.
        start: where a reset sets the state, and where the run begins if `state` is
            None: of one row or `(..., F)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
        mask: booleans `(..., T)`, which steps are valid; see `cell`.
        resets: booleans `(..., T)`, where a new segment starts; see `cell`. All
            segments of a sequence have one mask.
        reverse: whether to run from the last valid step to the first.
        remat: how many steps lie between two states that are kept; see `cell`.
        implementation: as for `cell`.

    Returns:
        `(state, y)`: the final state, and its first part at every step, `(..., T, F)`,
        in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit, or a rate is out of range, has no
            key, or is not like its tree.

    With all rates 0 it is `cell`. Dropout and recurrent dropout with one mask for all
    steps are from Gal and Ghahramani, "A Theoretically Grounded Application of Dropout
    in Recurrent Neural Networks", 2016, https://arxiv.org/abs/1512.05287; for zoneout
    see `jaxseq.zoneout`.

    Example:
        As a layer of a stack, by `partial`:

        >>> from functools import partial
        >>> below, above, first, second = jax.random.split(jax.random.key(0), 4)
        >>> rates = {"dropout": 0.2, "recurrent_dropout": 0.2}
        >>> layer = partial(jaxseq.cell_dropout, jaxseq.LSTM, **rates)
        >>> layers = [partial(layer, jaxseq.lstm_init(below, 3, 8), key=first),
        ...           partial(layer, jaxseq.lstm_init(above, 8, 8), key=second)]
        >>> state, y = jaxseq.stack(layers, jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """
    cell = cell_of(check_cell(cell), params)
    update, weights = in_units(cell.update, params)
    cell = cell._replace(update=update)
    if hasattr(weights.w_x, "shape"):
        x = as_array(x, "x")
    inputs = jax.tree.leaves(x)
    ok = bool(inputs) and all(jnp.ndim(a) >= 2 for a in inputs)
    check(ok, "x", "inputs of shape (..., T, D)", [jnp.shape(a) for a in inputs])
    row = jax.eval_shape(lambda: cell.zeros(params, ()))
    of_x = rates_of(dropout, x, "dropout")
    if not isinstance(dropout, (tuple, list, dict)):
        of_x = tuple(of_x[i] if is_float(a) else 0.0 for i, a in enumerate(inputs))
    of_h = rates_of(recurrent_dropout, weights.w_h, "recurrent_dropout")
    of_state = rates_of(zoneout, row, "zoneout")
    if key is not None:
        check_key(key)
    if check_flag(deterministic, "deterministic"):
        cell, key = mean_of(cell, of_state, jax.tree.structure(row)), None
    else:
        check_rate_key((*of_x, *of_h, *of_state), key, "dropout")
    lead, update = jnp.shape(inputs[0])[:-1], cast(Any, cell.update)
    if state is None and start is None:
        state = cell.zeros(params, lead[:-1])
    if key is not None:
        keys = jax.random.split(key, 3)
        x = dropped(x, of_x, keys[0])
        kept = kept_by(weights.w_h, of_h, lead, keys[1])
        old = old_of(row, of_state, lead, keys[2])
        if kept or old:
            update = first_of_equals(Dropping(update, of_h, of_state))
            weights, x = with_masks(weights, kept, old), (x, kept, old)
    return sequence(
        update,
        weights,
        x,
        state,
        start=start,
        lengths=lengths,
        mask=mask,
        resets=resets,
        reverse=reverse,
        remat=remat,
        implementation=implementation,
    )


def dropped(x: Any, rates: tuple[Any, ...], key: Array) -> Any:
    """Inputs with the same features dropped at all steps of a sequence."""
    leaves, tree = jax.tree.flatten(x)
    of_each = zip(leaves, rates, jax.random.split(key, len(leaves)), strict=True)
    return tree.unflatten([drop(a, p, k, same=True) for a, p, k in of_each])
