"""Variants of the Elman network, as `Cell`s."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_callable, check_sizes
from jaxseq._cells.cell import Cell
from jaxseq._cells.rnn import RNNUpdate
from jaxseq._cells.variants import drawn, first_of_equals, known_clip, width_of
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths

Function = Callable[[Array], Array]


def rnn_cell(*, activation: Function = jnp.tanh, clip: float | None = None) -> Cell:
    """Makes a variant of the Elman network; without arguments it is that of `rnn`.

    Args:
        activation: pointwise function φ.
        clip: largest absolute value of what it is given; not limited if None.

    Returns:
        A `Cell`, equal to any other with the same arguments. Its weights are
        `CellParams`: `w_x` `(D, H)`, `w_h` `(H, H)`, `b` `(H,)`, and `extra` a second
        bias `(H,)`, or None. `init(key, D, H)` draws them as `rnn_init` does, and takes
        `dtype` too.

    Raises:
        ValueError: if `activation` is not a function, or `clip` is not
            above 0.

    Example:
        >>> cell = jaxseq.rnn_cell(activation=jax.nn.relu)
        >>> params = cell.init(jax.random.key(0), 3, 8)
        >>> h, y = jaxseq.cell(cell.update, params, jnp.ones((5, 20, 3)), zeros=8)
        >>> y.shape
        (5, 20, 8)
    """
    check_callable(activation, "activation")
    return first_of_equals(
        Cell(RNNUpdate(activation, known_clip(clip)), _rnn_init, _rnn_zeros)
    )


def _rnn_init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> CellParams:
    check_sizes(H=H)
    return drawn(key, D, H, 1, (H, H), dtype)


def _rnn_zeros(params: CellParams, batch: int | tuple[int, ...] = ()) -> Array:
    return zeros_like_widths(width_of(params.w_h, 1), batch, params.w_x.dtype)
