"""A cell of one's own as a module."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import as_array, check, check_state
from jaxseq.nn._recurrent import Recurrent


class Cell(Recurrent):
    """A cell of one's own over time; see `jaxseq.cell` for what it takes.

    Args:
        cell: the update with how its weights and state begin, a `jaxseq.Cell`.
        in_features: width of the input.
        hidden_features: width of the output of each layer and direction.

    The other arguments, methods and weights are those of `LSTM`. The input of the first
    layer may be a tree, as the cell takes it.

    Example:
        >>> def update(z_x, h, w_h, _):
        ...     return jnp.tanh(z_x + w_h(h))
        >>> def init(key, D, H, **dtype):
        ...     return jaxseq.cell_init(key, D, H, (H, H), **dtype)
        >>> def zeros(params, batch=()):
        ...     return jaxseq.cell_zeros(len(params.w_h), batch, dtype=params.w_h.dtype)
        >>> cell = jaxseq.Cell(update, init, zeros)
        >>> module = jaxseq.nn.Cell(cell, 3, 8, rngs=nnx.Rngs(0))
        >>> state, y = module(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """

    def __init__(
        self,
        cell: jaxseq.Cell,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: str = "concat",
        dropout: ArrayLike = 0.0,
        dropout_per: str = "step",
        recurrent_dropout: ArrayLike | Any = 0.0,
        zoneout: ArrayLike | Any = 0.0,
        weight_drop: ArrayLike | Any = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(isinstance(cell, jaxseq.Cell), "cell", "a Cell", type(cell).__name__)
        self.cell = nnx.static(cell)
        super().__init__(
            cell.init,
            in_features,
            hidden_features,
            num_layers=num_layers,
            bidirectional=bidirectional,
            merge=merge,
            dropout=dropout,
            dropout_per=dropout_per,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            weight_drop=weight_drop,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    @property
    def _cell(self) -> jaxseq.Cell:
        return self.cell

    def _sequence(self, params: Any, x: Any, state: Any = None, **options: Any) -> Any:
        if state is None and options.get("start") is None:
            state = self._zeros(params, jax.tree.leaves(x)[0].shape[:-2])
        else:
            row = jax.eval_shape(lambda: self._zeros(params, ()))
            options["zeros"] = jax.tree.map(lambda a: a.shape[-1], row)
        params = jaxseq.CellParams(*params)
        return jaxseq.cell(self.cell.update, params, x, state, **options)

    def _step(self, params: Any, state: Any, x: Any, **options: Any) -> Any:
        weights, params = params, jaxseq.CellParams(*params)
        if hasattr(params.w_x, "shape"):  # of one input, not of a tree of them
            check(as_array(x, "x").ndim >= 1, "x", "shape (..., D)", x.shape)
        batch = jax.tree.leaves(x)[0].shape[:-1]
        like = jax.eval_shape(lambda: self._zeros(weights, batch))
        state = check_state(state, like)
        return jaxseq.cell_step(self.cell.update, params, state, x, **options)

    def _zeros(self, params: Any, batch: tuple[int, ...]) -> Any:
        return self.cell.zeros(params, batch)
