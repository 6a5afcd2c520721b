"""What Linen modules of cells share; the arithmetic is `stack` and `bidirectional`."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import (
    as_array,
    check,
    check_batch,
    check_choice,
    check_dtype,
    check_flag,
    check_sizes,
    check_value,
)
from jaxseq._base.dropout import check_rate, is_zero
from jaxseq._base.dtypes import is_float
from jaxseq._base.rates import rates_of
from jaxseq.linen._layers import all_zero, cast, keys_of, layer, layer_step


class Recurrent(nn.Module, kw_only=True):
    """Layers of one cell over time; each module names its functions."""

    num_layers: int = 1
    bidirectional: bool = False
    merge: str = "concat"
    dropout: ArrayLike = 0.0
    dropout_per: str = "step"
    recurrent_dropout: Any = 0.0
    zoneout: Any = 0.0
    weight_drop: Any = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        sizes = {"hidden_features": self._width, "num_layers": self.num_layers}
        check_sizes(**sizes)
        both = check_flag(self.bidirectional, "bidirectional")
        check_choice(self.merge, "merge", ("concat", "sum", "mean"))
        ok = both or self.merge == "concat"
        check_value(ok, "merge", "'concat', or a bidirectional module", self.merge)
        check_choice(self.dropout_per, "dropout_per", ("step", "sequence"))
        check_rate(self.dropout)
        expected = "0 with a single layer, as it acts between layers"
        ok = self.num_layers > 1 or is_zero(self.dropout)
        check(ok, "dropout", expected, self.dropout)
        check_dtype(self.param_dtype, "param_dtype")
        if self.dtype is not None:
            check_dtype(self.dtype, "dtype")
        weights, state = self._shapes()
        w_h = jaxseq.CellParams(*weights).w_h
        rates_of(self.recurrent_dropout, w_h, "recurrent_dropout")
        rates_of(self.zoneout, state, "zoneout")
        rates_of(self.weight_drop, w_h, "weight_drop")
        super().__post_init__()

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        start: Any = None,
        reverse: bool = False,
        remat: int | None = None,
        implementation: str | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Array]:
        """Runs all layers over time; dropout takes keys from the stream "dropout".

        Args:
            x: inputs, `(..., T, D)`; or a tree of such for a `Cell` that takes one.
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
                pass of its own, "pallas" a kernel for TPUs, "native" one in C++ for
                CPUs; None is the fastest of those that run here.
            deterministic: whether nothing is dropped, as in evaluation.

        Returns:
            `(state, y)`, as of `jaxseq.nn.LSTM`: a tuple with the final state of each
            layer, and the outputs of the last one, `(..., T, hidden_features)`, twice
            as wide if bidirectional with `merge="concat"`.

        Raises:
            ValueError: if a shape or dtype does not fit, or a length is not in 0…T.
        """
        deterministic = check_flag(deterministic, "deterministic")
        x, params = self._inputs(x)
        options = {"remat": remat, "implementation": implementation}
        key_for = partial(self._key, deterministic)
        if (key := key_for(self.weight_drop)) is not None:
            params = jaxseq.weight_drop(params, self.weight_drop, key=key)
        keys = keys_of(key_for((self.recurrent_dropout, self.zoneout)), self.num_layers)
        each = zip(params, keys, strict=True)
        layers = [layer(self, *own, options) for own in each]
        key = key_for(self.dropout)
        dropping: Any = {} if key is None else {"dropout": self.dropout, "key": key}
        return jaxseq.stack(
            layers,
            x,
            state,
            lengths=lengths,
            mask=mask,
            resets=resets,
            start=start,
            reverse=reverse,
            dropout_per=self.dropout_per,
            **dropping,
        )

    def step(
        self,
        state: Any,
        x: Any,
        *,
        resets: ArrayLike | None = None,
        start: Any = None,
    ) -> tuple[Any, Array]:
        """Does one step of all layers, as in evaluation: `apply(…, method="step")`.

        Args:
            state: a tuple with the previous state of each layer, such as `zeros` gives.
            x: input at this step, `(..., D)`.
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
        layers = [layer_step(self, weights) for weights in params]
        return jaxseq.stack(layers, x, state, resets=resets, start=start)

    @nn.nowrap
    def zeros(self, batch: int | tuple[int, ...] = ()) -> Any:
        """The state before the first step, as `__call__` and `step` take it.

        It needs no weights: `module.zeros(5)`.

        Args:
            batch: axes in front, a tuple or one size.

        Returns:
            A tuple with the state of each layer; that of a bidirectional layer is a
            pair `(forward, backward)`. It is float64 if `param_dtype` or `dtype` is,
            else float32.

        Raises:
            ValueError: if `batch` is not a size or a tuple of sizes.
        """
        _, shapes = self._shapes(check_batch(batch))
        one = lambda: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        both = lambda: (one(), one())
        return tuple(
            both() if self.bidirectional else one() for _ in range(self.num_layers)
        )

    # what each module has of its own, beside `hidden_features`
    _sequence: ClassVar[Callable[..., Any]]
    _step: ClassVar[Callable[..., Any]]

    @property
    def _cell(self) -> jaxseq.Cell:
        raise NotImplementedError

    @property
    def _width(self) -> int:
        own: Any = self
        return own.hidden_features

    @nn.compact
    def _weights(self, D: int) -> Any:
        return self.param("weights", self._draw, D)

    @nn.nowrap
    def _draw(self, key: Array, D: int) -> Any:
        directions = 2 if self.bidirectional else 1
        width = self._width * (directions if self.merge == "concat" else 1)
        widths = [D] + [width] * (self.num_layers - 1)
        keys = iter(jax.random.split(key, directions * self.num_layers))
        draw = lambda D: self._cell.init(
            next(keys), D, self._width, dtype=self.param_dtype
        )
        layers = [tuple(draw(D) for _ in range(directions)) for D in widths]
        return tuple(each if self.bidirectional else each[0] for each in layers)

    @nn.nowrap
    def _shapes(self, batch: tuple[int, ...] = ()) -> tuple[Any, Any]:
        """Shapes of the weights of one layer, and of its state."""

        def one() -> tuple[Any, Any]:
            D, kind = self._width, {"dtype": self.param_dtype}
            weights = self._cell.init(jax.random.key(0), D, D, **kind)
            return weights, self._cell.zeros(cast(weights, self.dtype), batch)

        return jax.eval_shape(one)

    @nn.nowrap
    def _inputs(self, x: Any) -> tuple[Any, Any]:
        """The inputs, and the weights, in the dtype of the computation."""
        is_leaf = lambda a: a is None or isinstance(a, list)
        x = jax.tree.map(lambda a: as_array(a, "x"), x, is_leaf=is_leaf)
        parts = jax.tree.leaves(x)
        check(bool(parts), "x", "an array", type(x).__name__)
        check(parts[0].ndim >= 1, "x", "shape (..., D)", parts[0].shape)
        dtype = next(filter(is_float, parts), parts[0]).dtype
        check_dtype(dtype, "x")
        dtype = dtype if self.dtype is None else self.dtype
        weights = self._weights(parts[0].shape[-1])
        return cast(x, dtype), cast(weights, dtype)

    @nn.nowrap
    def _key(self, deterministic: bool, rates: Any) -> Any:
        """A new key, if something is dropped at these rates."""
        none = deterministic or all_zero(rates)
        return None if none else self.make_rng("dropout")
