"""The cells of a model, built in or not."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxseq._cells.any import cell_of, run_cell
from jaxseq._cells.cell import Cell
from jaxseq._compose.layers import bidirectional


def layer_of(cell: Cell | None, directions: tuple[Any, ...]) -> Callable[..., Any]:
    """The layer of the weights of one direction or of both."""
    layers = [partial(run_cell, cell_of(cell, params), params) for params in directions]
    return layers[0] if len(layers) == 1 else partial(bidirectional, *layers)


def zeros_like(cell: Cell | None, params: Any, batch: tuple[int, ...] = ()) -> Any:
    """Shapes and dtypes of a state of a cell with these weights."""
    return jax.eval_shape(lambda: cell_of(cell, params).zeros(params, batch))


def widths_of(cell: Cell | None, params: Any) -> list[int]:
    """Of the parts of a state, the output first."""
    return [a.shape[-1] for a in jax.tree.leaves(zeros_like(cell, params))]
