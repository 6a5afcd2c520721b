"""What modules of cells share; the arithmetic is `stack` and `bidirectional`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx
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
from jaxseq.nn._weights import DroppingWeights, all_zero, check_module


class Recurrent(DroppingWeights):
    """Layers of one cell over time; each cell names its functions."""

    _cell: Any
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
        dropout: ArrayLike,
        dropout_per: str,
        recurrent_dropout: ArrayLike | Any,
        zoneout: ArrayLike | Any,
        weight_drop: ArrayLike | Any,
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
        check_value(ok, "merge", "'concat', or a bidirectional module", merge)
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
        first = jaxseq.CellParams(*layers[0][0])
        row = jax.eval_shape(lambda: self._zeros(layers[0][0], ()))
        rates_of(recurrent_dropout, first.w_h, "recurrent_dropout")
        rates_of(zoneout, row, "zoneout")
        rates_of(weight_drop, first.w_h, "weight_drop")
        rates = recurrent_dropout, zoneout, weight_drop
        super().__init__(params, dropout, dtype, rngs, rates)
        self.recurrent_dropout, self.zoneout, self.weight_drop = rates
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.merge = merge
        self.dropout_per = dropout_per

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
    ) -> tuple[Any, Array]:
        """Runs all layers over time, with dropout until `module.eval()`.

        Args:
            x: inputs, `(..., T, in_features)`; or a tree of such for a `Cell` that
                takes one.
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
        dropping = self._dropping()
        if (key := self._key(self.weight_drop)) is not None:
            params = jaxseq.weight_drop(params, self.weight_drop, key=key)
        key = self._key((self.recurrent_dropout, self.zoneout))
        keys = _keys(key, self.num_layers)
        return jaxseq.stack(
            [self._layer(*each, options) for each in zip(params, keys, strict=True)],
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
        """Does one step of all layers, as in evaluation; a `lax.scan` body.

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
        step = self._step
        if not all_zero(self.zoneout):
            cell = jaxseq.zoneout(self._cell, self.zoneout)
            step = partial(_step_of, cell.update)
        layers = [partial(_one_step, step, weights) for weights in params]
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

    def _layer(self, weights: Any, key: Any, options: Any) -> Callable:
        """A layer as a function; in training with a key, if it draws."""
        if self.bidirectional:
            both = zip(weights, _keys(key, 2), strict=True)
            both = (self._one_way(*each, options) for each in both)
            return partial(jaxseq.bidirectional, *both, merge=self.merge)
        return self._one_way(weights, key, options)

    def _one_way(self, weights: Any, key: Any, options: Any) -> Callable:
        if key is None and all_zero(self.zoneout):
            return partial(self._sequence, weights, **options)
        return partial(
            jaxseq.cell_dropout,
            self._cell,
            weights,
            recurrent_dropout=self.recurrent_dropout,
            zoneout=self.zoneout,
            key=key,
            deterministic=key is None,
            **options,
        )


def _keys(key: Any, n: int) -> Any:
    return [None] * n if key is None else jax.random.split(key, n)


def _step_of(update: Any, weights: Any, state: Any, x: Any, **options: Any) -> Any:
    return jaxseq.cell_step(update, jaxseq.CellParams(*weights), state, x, **options)


def _one_step(step: Any, weights: Any, x: Any, state: Any, **options: Any) -> Any:
    return step(weights, state, x, **options)
