"""Variants of the LSTM, as `Cell`s."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import (
    check,
    check_callable,
    check_flag,
    check_number,
    check_sizes,
)
from jaxseq._cells.cell import Cell
from jaxseq._cells.lstm_update import (
    LSTMExtra,
    LSTMNorms,
    LSTMState,
    LSTMUpdate,
    Peepholes,
    Projected,
)
from jaxseq._cells.variants import (
    above_0,
    drawn,
    first_of_equals,
    known_clip,
    shape_of,
    width_of,
)
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths

Function = Callable[[Array], Array]


def lstm_cell(
    *,
    gate: Function = jax.nn.sigmoid,
    candidate: Function = jnp.tanh,
    output: Function = jnp.tanh,
    clip: float | None = None,
    coupled: bool = False,
    peepholes: bool = False,
    layer_norm: bool = False,
    epsilon: float = 1e-5,
    cells: int | None = None,
    heads: int = 1,
) -> Cell:
    """Makes a variant of the LSTM; without arguments it is that of `lstm`.

    Args:
        gate: activation of the input, forget and output gates.
        candidate: activation of the candidate.
        output: activation of the cell state on its way to the output.
        clip: largest absolute value of what the activations of the gates and of the
            candidate are given; not limited if None.
        coupled: whether the forget gate is 1 minus the input gate. The weights of the
            forget gate stay where they are, and are not used.
        peepholes: whether the gates read the cell state: the input and forget gates
            that of the step before, the output gate the new one.
        layer_norm: whether the input map, the recurrent product, and the cell state on
            its way to the output are normalized.
        epsilon: added to the variances of the layer normalization.
        cells: number of cells, if their outputs are projected to the width H of the
            hidden state; None for H cells and no projection.
        heads: number of equal blocks along the diagonal of each gate's recurrent
            matrix.

    Returns:
        A `Cell`, equal to any other with the same arguments. Its weights are
        `CellParams`, with the gates in the order i, f, g, o: `w_x` `(D, 4H)`; `w_h`
        `(H, 4H)`, with N heads `(N, H / N, 4H / N)`, where the four gates of a head
        stand side by side; `b` `(4H,)`, None with `layer_norm`; and `extra` None, or
        an `LSTMExtra`. With n `cells`, `w_x` is `(D, 4n)`, `b` `(4n,)`, and `w_h` a
        `Projected`. `init(key, D, H)` draws them as `lstm_init` does, and takes
        `forget_bias` and `dtype` too.

    Raises:
        ValueError: if an activation is not a function, `clip` or `epsilon`
            is not above 0, `heads` or `cells` is less than 1, or there are both `cells`
            and several heads; from `init`, if `heads` does not divide H.

    Peepholes are from Gers and Schmidhuber, "Recurrent Nets that Time and Count", 2000,
    https://doi.org/10.1109/IJCNN.2000.861302; coupled gates from Greff et al., "LSTM: A
    Search Space Odyssey", 2015, https://arxiv.org/abs/1503.04069; the projection from
    Sak, Senior and Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
    Architectures for Large Vocabulary Speech Recognition", 2014,
    https://arxiv.org/abs/1402.1128; layer normalization from Ba, Kiros and Hinton,
    "Layer Normalization", 2016, https://arxiv.org/abs/1607.06450, the sum of whose
    biases of the gates is one here; heads from Beck et al., "xLSTM: Extended Long
    Short-Term Memory", 2024, https://arxiv.org/abs/2405.04517.

    Example:
        >>> cell = jaxseq.lstm_cell(peepholes=True, clip=3.0)
        >>> params = cell.init(jax.random.key(0), 3, 8)
        >>> x, zeros = jnp.ones((5, 20, 3)), jaxseq.LSTMState(8, 8)
        >>> state, y = jaxseq.cell(cell.update, params, x, zeros=zeros)
        >>> y.shape
        (5, 20, 8)
    """
    for f, name in ((gate, "gate"), (candidate, "candidate"), (output, "output")):
        check_callable(f, name)
    clip, epsilon = known_clip(clip), above_0(epsilon, "epsilon")
    coupled = check_flag(coupled, "coupled")
    peepholes = check_flag(peepholes, "peepholes")
    layer_norm = check_flag(layer_norm, "layer_norm")
    check_sizes(heads=heads, **({} if cells is None else {"cells": cells}))
    check(cells is None or heads == 1, "heads", "1 with a projection", heads)
    cells, heads = None if cells is None else int(cells), int(heads)
    update = LSTMUpdate(gate, candidate, output, clip, coupled, heads, epsilon)
    init = LSTMInit(peepholes, layer_norm, cells, heads)
    return first_of_equals(Cell(update, init, LSTMZeros(heads)))


@dataclass(frozen=True)
class LSTMInit:
    """Draws the weights of a cell of `lstm_cell`."""

    peepholes: bool
    layer_norm: bool
    cells: int | None
    heads: int

    def __call__(
        self,
        key: Array,
        D: int,
        H: int,
        *,
        forget_bias: ArrayLike = 1.0,
        dtype: Any = jnp.float32,
    ) -> CellParams:
        check_sizes(H=H)
        n = H if self.cells is None else self.cells
        w_h: Any = shape_of(H, 4 * n, self.heads)
        w_h = w_h if self.cells is None else Projected(w_h, (n, H))
        params = drawn(key, D, n, 4, w_h, dtype)
        finite = lambda b: abs(b) < float("inf")
        check_number(forget_bias, "forget_bias", "a finite number", finite, (n,))
        b = params.b.at[n : 2 * n].set(jnp.asarray(forget_bias, dtype))
        ones, zeros = partial(jnp.ones, dtype=dtype), partial(jnp.zeros, dtype=dtype)
        p = Peepholes(zeros(n), zeros(n), zeros(n)) if self.peepholes else None
        norms = None
        if self.layer_norm:
            norms = LSTMNorms(ones(4 * n), ones(4 * n), ones(n), zeros(n), b)
        b = None if self.layer_norm else b
        return params._replace(
            b=b, extra=LSTMExtra(None, p, norms) if p or norms else None
        )


@dataclass(frozen=True)
class LSTMZeros:
    """The state of zeros of a cell of `lstm_cell`."""

    heads: int

    def __call__(
        self, params: CellParams, batch: int | tuple[int, ...] = ()
    ) -> LSTMState:
        widths: Any
        w_h = params.w_h
        if isinstance(w_h, Projected):
            n, P = w_h.projection.shape
            widths = LSTMState(P, n)
        else:
            H: Any = width_of(w_h, self.heads)
            widths = LSTMState(H, H)
        return zeros_like_widths(widths, batch, params.w_x.dtype)
