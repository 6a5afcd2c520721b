"""Cells as modules: weights; the arithmetic is `stack` and `bidirectional`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq
from jaxseq._base.check import (
    as_array,
    check,
    check_batch,
    check_callable,
    check_choice,
    check_dtype,
    check_flag,
    check_sizes,
    check_state,
)
from jaxseq._base.dropout import check_rate, is_zero
from jaxseq._base.dtypes import is_float
from jaxseq.nn._weights import DroppingWeights, check_module


class _Recurrent(DroppingWeights):
    """What the modules share; each names its functions."""

    _sequence: Callable
    _step: Callable
    _zeros: Callable

    def __init__(
        self,
        init: Callable[..., Any],
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int,
        bidirectional: bool,
        merge: str,
        dropout: float | Array,
        dropout_per: str,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        check_module(rngs, param_dtype)
        check_sizes(
            in_features=in_features,
            hidden_features=hidden_features,
            num_layers=num_layers,
        )
        bidirectional = check_flag(bidirectional, "bidirectional")
        check_choice(merge, "merge", ("concat", "sum", "mean"))
        ok = bidirectional or merge == "concat"
        check(ok, "merge", "'concat', or a bidirectional module", repr(merge))
        check_choice(dropout_per, "dropout_per", ("step", "sequence"))
        check_rate(dropout)
        expected = "0 with a single layer, as it acts between layers"
        check(num_layers > 1 or is_zero(dropout), "dropout", expected, dropout)
        directions = 2 if bidirectional else 1
        out_features = hidden_features * (directions if merge == "concat" else 1)
        widths = [in_features] + [out_features] * (num_layers - 1)
        draw = lambda D: init(rngs.params(), D, hidden_features, dtype=param_dtype)
        layers = [tuple(draw(D) for _ in range(directions)) for D in widths]
        params = tuple(each if bidirectional else each[0] for each in layers)
        super().__init__(params, dropout, dtype, rngs)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.merge = merge
        self.dropout_per = dropout_per

    def __call__(
        self,
        x: Array,
        state: Any = None,
        *,
        lengths: Array | None = None,
        mask: Array | None = None,
        resets: Array | None = None,
        start: Any = None,
        reverse: bool = False,
        remat: int | None = None,
        implementation: str | None = None,
    ) -> tuple[Any, Array]:
        """Runs all layers over time, with dropout until `module.eval()`.

        Args:
            x: inputs, `(..., T, in_features)`.
            state: a tuple with the initial state of each layer, as returned; zeros if
                None.
            lengths: valid steps of each sequence, integers `(...)`; all T if None.
            mask: booleans `(..., T)`, which steps are valid; all if None.
            resets: booleans `(..., T)`; where True a new segment starts.
            start: a tuple with the state of each layer that a segment starts from, of
                one row or of each; zeros if None.
            reverse: whether to run from the last valid step to the first; a
                bidirectional layer changes its two directions.
            remat: for long inputs, how many steps lie between two states that are
                kept for the backward pass; see `jaxseq.lstm`.
            implementation: "scan" is `jax.lax.scan`, "loop" a loop with a backward
                pass of its own, "pallas" a kernel for TPUs; None is the fastest one
                here.

        Returns:
            `(state, y)`: a tuple with the final state of each layer, and the outputs
            of the last one, `(..., T, hidden_features)`, twice as wide if bidirectional
            with `merge="concat"`, in `dtype` or else the dtype of `x`. The state of a
            bidirectional layer is a pair `(forward, backward)`, also where that layer
            is the only one: `((forward, backward),)`.

        Raises:
            ValueError: if a shape or dtype does not fit, or a length is not in 0…T.
        """
        x, params = self._inputs(x)
        options = {"remat": remat, "implementation": implementation}
        return jaxseq.stack(
            [self._layer(weights, options) for weights in params],
            x,
            state,
            lengths=lengths,
            mask=mask,
            resets=resets,
            start=start,
            reverse=reverse,
            dropout_per=self.dropout_per,
            **self._dropping(),
        )

    def step(
        self,
        state: Any,
        x: Array,
        *,
        resets: Array | None = None,
        start: Any = None,
    ) -> tuple[Any, Array]:
        """Does one step of all layers, without dropout; a `lax.scan` body.

        Args:
            state: a tuple with the previous state of each layer, such as `zeros` gives.
            x: input at this step, `(..., in_features)`.
            resets: booleans `(...)`, where the state is set to `start` before the step.
            start: that state, a tuple as for `state`, of one row or of each; zeros if
                None.

        Returns:
            `(state, y)`: the new states, and the output of the last layer,
            `(..., hidden_features)`.

        Raises:
            ValueError: if a shape or dtype does not fit, or the module is
                bidirectional: the backward direction needs the whole sequence.
        """
        expected = "False for single steps"
        check(not self.bidirectional, "bidirectional", expected, True)
        check(state is not None, "state", "a state, such as of zeros()", None)
        x, params = self._inputs(x)
        layers = [partial(_one_step, self._step, weights) for weights in params]
        return jaxseq.stack(layers, x, state, resets=resets, start=start)

    def zeros(self, batch: int | tuple[int, ...] = ()) -> Any:
        """The state before the first step, as `__call__` and `step` take it.

        Args:
            batch: axes in front, a tuple or one size.

        Returns:
            A tuple with the state of each layer; that of a bidirectional layer is a
            pair `(forward, backward)`. It is float64 if the weights or `dtype` are,
            else float32.

        Raises:
            ValueError: if `batch` is not a size or a tuple of sizes.
        """
        batch = check_batch(batch)
        one = lambda weights: self._zeros(weights, batch)
        if self.bidirectional:
            return tuple(tuple(map(one, pair)) for pair in self.params)
        return tuple(map(one, self.params))

    def _inputs(self, x: Any) -> tuple[Any, Any]:
        """The inputs, and the weights, in the dtype of the computation."""
        is_leaf = lambda a: a is None or isinstance(a, list)
        x = jax.tree.map(lambda a: as_array(a, "x"), x, is_leaf=is_leaf)
        parts = jax.tree.leaves(x)
        check(bool(parts), "x", "an array", type(x).__name__)
        dtype = next(filter(is_float, parts), parts[0]).dtype
        check_dtype(dtype, "x")
        dtype = dtype if self.dtype is None else self.dtype
        cast = lambda a: a.astype(dtype) if is_float(a) else a
        return jax.tree.map(cast, x), self._read(dtype)

    def _layer(self, weights: Any, options: Any) -> Callable:
        layer = lambda weights: partial(self._sequence, weights, **options)
        if self.bidirectional:
            both = map(layer, weights)
            return partial(jaxseq.bidirectional, *both, merge=self.merge)
        return layer(weights)


def _one_step(step: Any, weights: Any, x: Any, state: Any, **options: Any) -> Any:
    return step(weights, state, x, **options)


class Cell(_Recurrent):
    """A cell of one's own over time; see `jaxseq.cell` for what it takes.

    Args:
        cell: the update with how its weights and state begin, a `jaxseq.Cell`.
        in_features: width of the input.
        hidden_features: width of the output of each layer and direction.

    The other arguments, methods and weights are those of `LSTM`. The input of the first
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
        merge: str = "concat",
        dropout: float | Array = 0.0,
        dropout_per: str = "step",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check(isinstance(cell, jaxseq.Cell), "cell", "a Cell", type(cell).__name__)
        super().__init__(
            cell.init,
            in_features,
            hidden_features,
            num_layers=num_layers,
            bidirectional=bidirectional,
            merge=merge,
            dropout=dropout,
            dropout_per=dropout_per,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.cell = nnx.static(cell)

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


class RNN(_Recurrent):
    """Elman networks over time; see `jaxseq.rnn` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias` and with
    `activation`, a pointwise function. The weights are drawn by `jaxseq.rnn_init`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> module = RNN(3, 8, activation=jax.nn.relu, rngs=nnx.Rngs(0))
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
        dropout: float | Array = 0.0,
        dropout_per: str = "step",
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
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.activation = activation

    def _sequence(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn(*args, activation=self.activation, **options)

    def _step(self, *args: Any, **options: Any) -> tuple[Any, Array]:
        return jaxseq.rnn_step(*args, activation=self.activation, **options)

    _zeros = staticmethod(jaxseq.rnn_zeros)


class LSTM(_Recurrent):
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
        forget_bias: bias of the forget gates at the start; see `jaxseq.lstm_init`.
        dtype: dtype of the computation and of the outputs; that of `x` if None.
            States are float32 for the 16-bit dtypes.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size is less than 1, a dtype is not a supported float,
            `dropout` is out of range, or is not 0 with a single layer.

    `module.params` are the weights as the functions take them, a tuple with those of
    `jaxseq.lstm_init` for each layer, a pair `(forward, backward)` if bidirectional:
    the tree that states have too. `module.weights` is the same tree of `nnx.Param`, so
    `module.weights[0].b[...] = b` sets one.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> module = LSTM(3, 8, num_layers=2, rngs=nnx.Rngs(0))
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
        dropout: float | Array = 0.0,
        dropout_per: str = "step",
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
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    _sequence = staticmethod(jaxseq.lstm)
    _step = staticmethod(jaxseq.lstm_step)
    _zeros = staticmethod(jaxseq.lstm_zeros)


class GRU(_Recurrent):
    """GRUs over time; see `jaxseq.gru` for the equations.

    Arguments, methods and weights are those of `LSTM`, without `forget_bias`. The
    weights are drawn by `jaxseq.gru_init`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> module = GRU(3, 8, bidirectional=True, rngs=nnx.Rngs(0))
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
        dropout: float | Array = 0.0,
        dropout_per: str = "step",
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
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    _sequence = staticmethod(jaxseq.gru)
    _step = staticmethod(jaxseq.gru_step)
    _zeros = staticmethod(jaxseq.gru_zeros)
