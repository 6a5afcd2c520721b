"""Any cell by its `Cell`: what runs cells and names none."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check
from jaxseq._cells.cell import Cell
from jaxseq._cells.gru import GRUParams, gru_init, gru_zeros
from jaxseq._cells.gru_update import gru_update
from jaxseq._cells.lstm import LSTMParams, lstm_init, lstm_zeros
from jaxseq._cells.lstm_update import lstm_update
from jaxseq._cells.rnn import TANH, RNNParams, rnn_init, rnn_zeros
from jaxseq._cells.units import in_units
from jaxseq._engine.door import sequence, step
from jaxseq._engine.params import CellParams

LSTM = Cell(lstm_update, lstm_init, lstm_zeros)
GRU = Cell(gru_update, gru_init, gru_zeros)
RNN = Cell(TANH, rnn_init, rnn_zeros)

BUILT_IN: dict[type, Cell] = {LSTMParams: LSTM, GRUParams: GRU, RNNParams: RNN}


def check_cell(cell: Any) -> Cell:
    check(isinstance(cell, Cell), "cell", "a Cell", type(cell).__name__)
    return cell


def cell_of(cell: Cell | None, params: Any) -> Cell:
    """The cell, or the built-in one of these weights."""
    kinds = [kind.__name__ for kind in (*BUILT_IN, CellParams)]
    known = type(params) in BUILT_IN or type(params) is CellParams
    check(known, "params", f"cells among {kinds}", type(params).__name__)
    if cell is not None:
        return check_cell(cell)
    own = type(params) is CellParams
    check(not own, "cell", "the Cell of weights that are not built in", None)
    return BUILT_IN[type(params)]


def run_cell(
    cell: Cell, params: Any, x: Any, state: Any = None, **options: Any
) -> tuple[Any, Array]:
    """`sequence` for a cell and its weights, from zeros without a state or a start."""
    if state is None and options.get("start") is None:
        state = cell.zeros(params, jnp.shape(jax.tree.leaves(x)[0])[:-2])
    return sequence(*in_units(cell.update, params), x, state, **options)


def step_cell(cell: Cell, params: Any, state: Any, x: Any) -> tuple[Any, Array]:
    return step(*in_units(cell.update, params), state, x)
