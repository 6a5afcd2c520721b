"""GRUs as a module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

import jaxseq
from jaxseq.nn._recurrent import Recurrent


class GRU(Recurrent):
    """GRUs over time; see `jaxseq.gru` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias`. The
    weights are drawn by `jaxseq.gru_init`.

    Example:
        >>> module = jaxseq.nn.GRU(3, 8, bidirectional=True, rngs=nnx.Rngs(0))
        >>> ((forward, backward),), y = module(jnp.ones((5, 20, 3)))
        >>> y.shape, forward.shape, backward.shape
        ((5, 20, 16), (5, 8), (5, 8))
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
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            jaxseq.gru_init,
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

    _cell = jaxseq.GRU
    _sequence = staticmethod(jaxseq.gru)
    _step = staticmethod(jaxseq.gru_step)
    _zeros = staticmethod(jaxseq.gru_zeros)
