"""LSTMs as a module."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

import jaxseq
from jaxseq.nn._recurrent import Recurrent


class LSTM(Recurrent):
    """LSTMs over time; see `jaxseq.lstm` for the equations.

    Args:
        in_features: width of the input.
        hidden_features: width of the state of each layer and direction.
        num_layers: layers, one over the other.
        bidirectional: whether each layer also reads from the end to the start.
        merge: what becomes of the two outputs of a bidirectional layer: "concat" puts
            them side by side, "sum" and "mean" keep their width.
        dropout: probability that a value between two layers is set to zero in
            training, that is until `module.eval()` and after `module.train()`; see
            `jaxseq.stack`. It may be an array, to be changed under `jit`.
        dropout_per: "step" draws anew at each step, "sequence" once for each sequence.
        recurrent_dropout: probability that a feature of what a recurrent matrix
            multiplies is set to zero in training, at all steps of a sequence; see
            `jaxseq.cell_dropout`.
        zoneout: probability that a unit of the state keeps its old value in training,
            drawn anew at each step. In evaluation and in `step` the state is the mean.
        weight_drop: probability that an entry of a recurrent matrix is set to zero in
            training; see `jaxseq.weight_drop`. These three may be trees of numbers as
            those functions take them, such as `zoneout=LSTMState(0.05, 0.5)`.
        forget_bias: bias of the forget gates at the start; see `jaxseq.lstm_init`.
        dtype: dtype of the computation and of the outputs; that of `x` if None.
            States are float32 for the 16-bit dtypes.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for all that is dropped.

    Raises:
        ValueError: if a size is less than 1, a dtype is not a supported float,
            a probability is out of range, or `dropout` is not 0 with a single layer.

    `module.params` are the weights as the functions take them, a tuple with those of
    `jaxseq.lstm_init` for each layer, a pair `(forward, backward)` if bidirectional:
    the tree that states have too. `module.weights` is the same tree of `nnx.Param`, so
    `module.weights[0].b[...] = b` sets one.

    Example:
        >>> module = jaxseq.nn.LSTM(3, 8, num_layers=2, rngs=nnx.Rngs(0))
        >>> state, y = module(jnp.ones((5, 20, 3)))
        >>> state, y_t = module.step(module.zeros(5), jnp.ones((5, 3)))
        >>> y.shape, y_t.shape, state[1].c.shape
        ((5, 20, 8), (5, 8), (5, 8))
    """

    def __init__(
        self,
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
        forget_bias: float = 1.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            partial(jaxseq.lstm_init, forget_bias=forget_bias),
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

    _cell = jaxseq.LSTM
    _sequence = staticmethod(jaxseq.lstm)
    _step = staticmethod(jaxseq.lstm_step)
    _zeros = staticmethod(jaxseq.lstm_zeros)
