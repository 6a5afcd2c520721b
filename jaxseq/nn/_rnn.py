"""Elman networks as a module."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import check_callable
from jaxseq.nn._recurrent import Recurrent


class RNN(Recurrent):
    """Elman networks over time; see `jaxseq.rnn` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias` and with
    `activation`, a pointwise function. The weights are drawn by `jaxseq.rnn_init`.

    Example:
        >>> module = jaxseq.nn.RNN(3, 8, activation=jax.nn.relu, rngs=nnx.Rngs(0))
        >>> (state,), y = module(jnp.ones((5, 20, 3)))
        >>> y.shape, state.shape
        ((5, 20, 8), (5, 8))
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
        activation: Callable[[Array], Array] = jax.lax.tanh,  # which pickles
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_callable(activation, "activation")
        super().__init__(
            jaxseq.rnn_init,
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
        self.activation = activation

    @property
    def _cell(self) -> jaxseq.Cell:
        return jaxseq.rnn_cell(activation=self.activation)

    def _sequence(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn(*args, activation=self.activation, **options)

    def _step(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn_step(*args, activation=self.activation, **options)

    _zeros = staticmethod(jaxseq.rnn_zeros)
