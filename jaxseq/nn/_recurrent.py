"""Cells as modules: weights; the arithmetic is `stack` and `bidirectional`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq
from jaxseq._base.check import as_array, check, check_dtype, check_sizes


class _Weights(nnx.Module):
    """The weights of one cell, each array of floats in its params an `nnx.Param`."""

    def __init__(self, params: Any):
        self.kind = type(params)
        for name, w in params._asdict().items():
            setattr(self, name, nnx.data(jax.tree.map(_variable, w)))

    def params(self, dtype: Any) -> Any:
        read = lambda w: _cast(w[...], dtype)
        is_leaf = lambda w: isinstance(w, nnx.Variable)
        fields = tuple(getattr(self, name) for name in self.kind._fields)
        return self.kind(*jax.tree.map(read, fields, is_leaf=is_leaf))


def _variable(a: Any) -> Any:
    return nnx.Param(a) if _is_float(a) else nnx.Variable(a)


def _is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def _cast(a: Array, dtype: Any) -> Array:
    return a.astype(dtype) if _is_float(a) else a


class _Recurrent(nnx.Module):
    """What the modules share; each names its functions."""

    _init: Callable
    _sequence: Callable

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(
            in_features=in_features,
            hidden_features=hidden_features,
            num_layers=num_layers,
        )
        check(0 <= dropout < 1, "dropout", "a probability in [0, 1)", dropout)
        check_dtype(param_dtype, "param_dtype")
        if dtype is not None:
            check_dtype(dtype, "dtype")
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.dtype = dtype
        self.deterministic = False
        directions = 2 if bidirectional else 1
        widths = [in_features] + [directions * hidden_features] * (num_layers - 1)
        init = partial(self._init, dtype=param_dtype)
        self.layers = nnx.List(
            nnx.List(
                _Weights(init(rngs.params(), width, hidden_features))
                for _ in range(directions)
            )
            for width in widths
        )
        # a stream of keys only where one is drawn, so that use needs none
        self.rngs = rngs.dropout.fork() if dropout > 0 and num_layers > 1 else None

    def __call__(
        self,
        x: Array,
        state: Any = None,
        *,
        lengths: Array | None = None,
        mask: Array | None = None,
        resets: Array | None = None,
        start: Any = None,
        remat: int | None = None,
        implementation: str | None = None,
        deterministic: bool | None = None,
    ) -> tuple[Any, Array]:
        """Runs all layers over time.

        Args:
            x: inputs, `(..., T, in_features)`.
            state: a tuple with the initial state of each layer, as returned; that
                of a bidirectional layer is a pair. Zeros if None.
            lengths: valid steps of each sequence, integers `(...)`; all T if None.
            mask: booleans `(..., T)`, which steps are valid; see `jaxseq.lstm`.
            resets: booleans `(..., T)`, where a new segment starts.
            start: the states that a segment starts from, a tuple as for `state` of
                states of one row or of each; zeros if None.
            remat: for long inputs, steps between kept states; see `jaxseq.lstm`.
            implementation: what runs each layer; see `jaxseq.lstm`.
            deterministic: whether to leave out dropout; if None, as set by
                `module.train()` and `module.eval()`, and False before either.

        Returns:
            `(state, y)`: a tuple with the final state of each layer, and the
            outputs of the last one, `(..., T, hidden_features)`, or twice as wide
            if bidirectional, in `dtype` or else the dtype of `x`.

        Raises:
            ValueError: if a shape or dtype does not fit, or a length is not in 0…T.
        """
        x = jax.tree.map(lambda a: as_array(a, "x"), x, is_leaf=_is_list)
        parts = jax.tree.leaves(x)
        first = next(filter(_is_float, parts), parts[0]).dtype
        check_dtype(first, "x")
        dtype = first if self.dtype is None else self.dtype
        if deterministic is None:
            deterministic = self.deterministic
        rate = 0.0 if deterministic or self.rngs is None else self.dropout
        options = {"remat": remat, "implementation": implementation}
        return jaxseq.stack(
            [self._layer(directions, dtype, options) for directions in self.layers],
            jax.tree.map(partial(_cast, dtype=dtype), x),
            state,
            lengths=lengths,
            mask=mask,
            resets=resets,
            start=start,
            dropout=rate,
            key=self.rngs() if self.rngs is not None and rate > 0 else None,
        )

    def _layer(self, directions: Any, dtype: Any, options: Any) -> Callable:
        cells = [
            partial(self._sequence, weights.params(dtype), **options)
            for weights in directions
        ]
        return partial(jaxseq.bidirectional, *cells) if self.bidirectional else cells[0]


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


class Cell(_Recurrent):
    """A cell of one's own over time; see `jaxseq.cell` for what it takes.

    Args:
        cell: the update with how its weights and state begin, a `jaxseq.Cell`.
        in_features: width of the input.
        hidden_features: width of the output of each layer and direction.

    The other arguments, calls and weights are those of `LSTM`. The input of the first
    layer may be a tree, as the cell takes it.

    Example:
        >>> import jax, jaxseq
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> def update(z_x, h, w_h, _):
        ...     return jnp.tanh(z_x + w_h(h))
        >>> def init(key, D, H, **dtype):
        ...     return jaxseq.cell_init(key, D, H, (H, H), **dtype)
        >>> def zeros(params, batch=()):
        ...     return jaxseq.cell_zeros(len(params.w_h), batch, dtype=params.w_h.dtype)
        >>> module = Cell(jaxseq.Cell(update, init, zeros), 3, 8, rngs=nnx.Rngs(0))
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
        dropout: float = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(isinstance(cell, jaxseq.Cell), "cell", "a Cell", type(cell).__name__)
        self.cell = nnx.static(cell)
        super().__init__(
            in_features,
            hidden_features,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def _init(self, *args: Any, **kwargs: Any) -> Any:
        return self.cell.init(*args, **kwargs)

    def _sequence(self, params: Any, x: Any, state: Any = None, **options: Any) -> Any:
        if state is None and options.get("start") is None:
            state = self.cell.zeros(params, jax.tree.leaves(x)[0].shape[:-2])
        params = jaxseq.CellParams(*params)
        return jaxseq.cell(self.cell.update, params, x, state, **options)


class RNN(_Recurrent):
    """Elman networks over time; see `jaxseq.rnn` for the equations.

    Arguments, calls and weights are those of `LSTM`, and `activation`, a pointwise
    function, besides. Each layer's weights are drawn by `jaxseq.rnn_init`.
    """

    _init = staticmethod(jaxseq.rnn_init)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: Callable[[Array], Array] = jax.lax.tanh,  # which pickles
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            hidden_features,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.activation = activation

    def _sequence(self, *args: Any, **kwargs: Any) -> tuple[Any, Array]:
        return jaxseq.rnn(*args, activation=self.activation, **kwargs)


class LSTM(_Recurrent):
    """LSTMs over time; see `jaxseq.lstm` for the equations.

    Args:
        in_features: width of the input.
        hidden_features: width of the state of each layer and direction.
        num_layers: layers, one over the other.
        bidirectional: whether each layer also reads from the end to the start; the
            two outputs are then put side by side.
        dropout: probability that a value between two layers is set to zero in
            training; see `jaxseq.stack`.
        dtype: dtype of the computation and of the outputs; that of `x` if None.
            States are float32 for the 16-bit dtypes.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size is less than 1, a dtype is not a supported float, or
            `dropout` is out of range.

    The weights of a layer and direction (0 forward, 1 backward) are those of
    `jaxseq.lstm_init` and stand in `module.layers[layer][direction]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> module = LSTM(3, 8, num_layers=2, rngs=nnx.Rngs(0))
        >>> state, y = module(jnp.ones((5, 20, 3)))
        >>> y.shape
        (5, 20, 8)
    """

    _init = staticmethod(jaxseq.lstm_init)
    _sequence = staticmethod(jaxseq.lstm)


class GRU(_Recurrent):
    """GRUs over time; see `jaxseq.gru` for the equations.

    Arguments, calls and weights are those of `LSTM`, but that each layer's weights
    are drawn by `jaxseq.gru_init`.
    """

    _init = staticmethod(jaxseq.gru_init)
    _sequence = staticmethod(jaxseq.gru)
