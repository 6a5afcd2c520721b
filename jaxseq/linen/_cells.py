"""Elman networks, LSTMs and GRUs as modules."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any

import jax
from jax import Array

import jaxseq
from jaxseq._base.check import check_callable
from jaxseq.linen._recurrent import Recurrent


class LSTM(Recurrent):
    """LSTMs over time, as a Linen module; see `jaxseq.lstm` for the equations.

    The width of the input is that of the `x` it is first called with.

    Args:
        hidden_features: width of the state of each layer and direction.
        forget_bias: bias of the forget gates at the start; see `jaxseq.lstm_init`.
        num_layers: layers, one over the other.
        bidirectional: whether each layer also reads from the end to the start.
        merge: what becomes of the two outputs of a bidirectional layer: "concat" puts
            them side by side, "sum" and "mean" keep their width.
        dropout: probability that a value between two layers is set to zero; see
            `jaxseq.stack`.
        dropout_per: "step" draws anew at each step, "sequence" once for each sequence.
        recurrent_dropout: probability that a feature of what a recurrent matrix
            multiplies is set to zero, at all steps of a sequence; see
            `jaxseq.cell_dropout`.
        zoneout: probability that a unit of the state keeps its old value, drawn anew at
            each step. In evaluation and in `step` the state is the mean.
        weight_drop: probability that an entry of a recurrent matrix is set to zero; see
            `jaxseq.weight_drop`. These three may be trees of numbers as those functions
            take them.
        dtype: dtype of the computation and of the outputs; that of `x` if None.
            States are float32 for the 16-bit dtypes.
        param_dtype: dtype of the stored weights.

    Raises:
        ValueError: if a size is less than 1, a dtype is not a supported float,
            a probability is out of range, or `dropout` is not 0 with a single layer.

    Random numbers of the stream "dropout" are drawn at every call that is not
    `deterministic`, if there is anything to drop.

    The one parameter, "weights", is `params` of `jaxseq.nn.LSTM`: a tuple with the
    weights of each layer, as `jaxseq.lstm` takes them, a pair `(forward, backward)` if
    bidirectional.

    Example:
        >>> module = jaxseq.linen.LSTM(8, num_layers=2)
        >>> x = jnp.ones((5, 20, 3))
        >>> variables = module.init(jax.random.key(0), x)
        >>> state, y = module.apply(variables, x)
        >>> one = module.apply(variables, module.zeros(5), x[:, 0], method="step")
        >>> y.shape, one[1].shape, state[1].c.shape
        ((5, 20, 8), (5, 8), (5, 8))
        >>> _, first = jaxseq.lstm(variables["params"]["weights"][0], x)
        >>> first.shape
        (5, 20, 8)
    """

    hidden_features: int
    _: KW_ONLY
    forget_bias: float = 1.0

    _sequence = staticmethod(jaxseq.lstm)
    _step = staticmethod(jaxseq.lstm_step)

    @property
    def _cell(self) -> jaxseq.Cell:
        init = partial(jaxseq.lstm_init, forget_bias=self.forget_bias)
        return jaxseq.LSTM._replace(init=init)


class GRU(Recurrent):
    """GRUs over time, as a Linen module; see `jaxseq.gru` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias`.

    Example:
        >>> module = jaxseq.linen.GRU(8, bidirectional=True)
        >>> x, lengths = jnp.ones((5, 20, 3)), jnp.array([20, 7, 0, 1, 13])
        >>> variables = module.init(jax.random.key(0), x)
        >>> ((forward, backward),), y = module.apply(variables, x, lengths=lengths)
        >>> y.shape, forward.shape, backward.shape
        ((5, 20, 16), (5, 8), (5, 8))
    """

    hidden_features: int

    _sequence = staticmethod(jaxseq.gru)
    _step = staticmethod(jaxseq.gru_step)

    @property
    def _cell(self) -> jaxseq.Cell:
        return jaxseq.GRU


class RNN(Recurrent):
    """Elman networks over time, as a Linen module; see `jaxseq.rnn` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias` and with
    `activation`, a pointwise function.

    Example:
        >>> module = jaxseq.linen.RNN(8, activation=jax.nn.relu)
        >>> x = jnp.ones((5, 20, 3))
        >>> ((state,), y), variables = module.init_with_output(jax.random.key(0), x)
        >>> y.shape, state.shape
        ((5, 20, 8), (5, 8))
    """

    hidden_features: int
    _: KW_ONLY
    activation: Callable[[Array], Array] = jax.lax.tanh

    def __post_init__(self):
        check_callable(self.activation, "activation")
        super().__post_init__()

    @property
    def _cell(self) -> jaxseq.Cell:
        cell = jaxseq.rnn_cell(activation=self.activation)
        return jaxseq.RNN._replace(update=cell.update)

    def _sequence(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn(*args, activation=self.activation, **options)

    def _step(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn_step(*args, activation=self.activation, **options)
