"""Variants of the GRU, as `Cell`s."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.check import check_callable, check_flag, check_sizes
from jaxseq._cells.cell import Cell
from jaxseq._cells.gru_update import GRUUpdate, ResetBefore
from jaxseq._cells.variants import (
    drawn,
    first_of_equals,
    known_clip,
    shape_of,
    width_of,
)
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths

Function = Callable[[Array], Array]


def gru_cell(
    *,
    gate: Function = jax.nn.sigmoid,
    candidate: Function = jnp.tanh,
    clip: float | None = None,
    reset_after: bool = True,
    heads: int = 1,
) -> Cell:
    """Makes a variant of the GRU; without arguments it is that of `gru`.

    Args:
        gate: activation of the reset and update gates.
        candidate: activation of the candidate.
        clip: largest absolute value of what the activations are given; not limited if
            None.
        reset_after: whether the reset gate acts on the recurrent product, as in `gru`,
            cuDNN and PyTorch; or on the hidden state before it, as it was published.
        heads: number of equal blocks along the diagonal of each gate's recurrent
            matrix.

    Returns:
        A `Cell`, equal to any other with the same arguments. Its weights are
        `CellParams`, with the gates in the order r, z, n: `w_x` `(D, 3H)`; `w_h`
        `(H, 3H)`, with N heads `(N, H / N, 3H / N)`, where the three gates of a head
        stand side by side; `b` `(3H,)`; and `extra` a second bias, of the recurrent
        product: `(H,)` of the candidate's part, `(3H,)` of all gates, or None. If not
        `reset_after`, `w_h` is a `ResetBefore`. `init(key, D, H)` draws them as
        `gru_init` does, and takes `dtype` too.

    Raises:
        ValueError: if an activation is not a function, `clip` is not above
            0, or `heads` is less than 1; from `init`, if `heads` does not divide H.

    The GRU is from Cho et al., "Learning Phrase Representations using RNN
    Encoder-Decoder for Statistical Machine Translation", 2014,
    https://arxiv.org/abs/1406.1078.

    Example:
        >>> cell = jaxseq.gru_cell(reset_after=False)
        >>> params = cell.init(jax.random.key(0), 3, 8)
        >>> h, y = jaxseq.cell(cell.update, params, jnp.ones((5, 20, 3)), zeros=8)
        >>> y.shape
        (5, 20, 8)
    """
    check_callable(gate, "gate")
    check_callable(candidate, "candidate")
    clip = known_clip(clip)
    reset_after = check_flag(reset_after, "reset_after")
    check_sizes(heads=heads)
    heads = int(heads)
    update = GRUUpdate(gate, candidate, clip, heads)
    return first_of_equals(Cell(update, GRUInit(reset_after, heads), GRUZeros(heads)))


@dataclass(frozen=True)
class GRUInit:
    """Draws the weights of a cell of `gru_cell`."""

    reset_after: bool
    heads: int

    def __call__(
        self, key: Array, D: int, H: int, *, dtype: Any = jnp.float32
    ) -> CellParams:
        check_sizes(H=H)
        shape = lambda Z: shape_of(H, Z, self.heads)
        w_h: Any = shape(3 * H)
        if not self.reset_after:
            w_h = ResetBefore(shape(2 * H), shape(H))
        params = drawn(key, D, H, 3, w_h, dtype)
        return params._replace(extra=jnp.zeros(H, dtype) if self.reset_after else None)


@dataclass(frozen=True)
class GRUZeros:
    """The state of zeros of a cell of `gru_cell`."""

    heads: int

    def __call__(self, params: CellParams, batch: int | tuple[int, ...] = ()) -> Array:
        w_h = params.w_h
        w_h = w_h.candidate if isinstance(w_h, ResetBefore) else w_h
        return zeros_like_widths(width_of(w_h, self.heads), batch, params.w_x.dtype)
