"""A cell of one's own as a module."""

from typing import Any

import jax

import jaxseq
from jaxseq._base.check import as_array, check, check_state
from jaxseq.linen._recurrent import Recurrent


class Cell(Recurrent):
    """A cell of one's own over time, as a Linen module; see `jaxseq.cell`.

    Args:
        cell: the update with how its weights and state begin, a `jaxseq.Cell`.
        hidden_features: width of the output of each layer and direction.

    The other arguments, methods and weights are those of `LSTM`. The input of the first
    layer may be a tree, as the cell takes it; its `init` is given the width of the
    first array of it.

    Example:
        >>> module = jaxseq.linen.Cell(jaxseq.lstm_cell(peepholes=True), 8)
        >>> x = jnp.ones((5, 20, 3))
        >>> variables = module.init(jax.random.key(0), x)
        >>> (state,), y = module.apply(variables, x)
        >>> y.shape, state.c.shape
        ((5, 20, 8), (5, 8))
    """

    cell: jaxseq.Cell
    hidden_features: int

    def __post_init__(self):
        ok = isinstance(self.cell, jaxseq.Cell)
        check(ok, "cell", "a Cell", type(self.cell).__name__)
        super().__post_init__()

    @property
    def _cell(self) -> jaxseq.Cell:
        return self.cell

    def _sequence(self, params: Any, x: Any, state: Any = None, **options: Any) -> Any:
        if state is None and options.get("start") is None:
            state = self.cell.zeros(params, jax.tree.leaves(x)[0].shape[:-2])
        else:
            row = jax.eval_shape(lambda: self.cell.zeros(params, ()))
            options["zeros"] = jax.tree.map(lambda a: a.shape[-1], row)
        params = jaxseq.CellParams(*params)
        return jaxseq.cell(self.cell.update, params, x, state, **options)

    def _step(self, params: Any, state: Any, x: Any, **options: Any) -> Any:
        weights, params = params, jaxseq.CellParams(*params)
        if hasattr(params.w_x, "shape"):  # of one input, not of a tree of them
            check(as_array(x, "x").ndim >= 1, "x", "shape (..., D)", x.shape)
        batch = jax.tree.leaves(x)[0].shape[:-1]
        like = jax.eval_shape(lambda: self.cell.zeros(weights, batch))
        state = check_state(state, like)
        return jaxseq.cell_step(self.cell.update, params, state, x, **options)
