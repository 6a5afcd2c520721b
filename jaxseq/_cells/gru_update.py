"""The equations of the gated recurrent unit, once for both places of its reset gate.

    r_t = σ(W_xr x_t + W_hr h_{t-1} + b_r)                    reset gate
    z_t = σ(W_xz x_t + W_hz h_{t-1} + b_z)                    update gate
    n_t = φ(W_xn x_t + b_n + r_t ⊙ (W_hn h_{t-1} + b_hn))     candidate
    n_t = φ(W_xn x_t + b_n + W_hn (r_t ⊙ h_{t-1}) + b_hn)     the same, reset before
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}                     hidden, also the output

The second bias may be of all three gates. The sources are named in `gru_cell`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._cells.check import check_row
from jaxseq._cells.lstm_update import by_gate, clipped
from jaxseq._cells.units import gates_of

Function = Callable[[Array], Array]


class ResetBefore(NamedTuple):
    """Recurrent matrices of a GRU whose reset gate stands before the product.

    Fields:
        gates: of the reset and update gates, `(H, 2H)`.
        candidate: of the candidate, `(H, H)`.
    """

    gates: Any
    candidate: Any


@dataclass(frozen=True)
class GRUUpdate:
    """The update of a GRU; two with the same fields are equal."""

    gate: Function = jax.nn.sigmoid
    candidate: Function = jnp.tanh
    clip: float | None = None
    heads: int = 1
    by_unit: bool = False  # whether rows have all gates of a unit side by side

    def __call__(self, z_x: Array, h: Array, w_h: Any, b_h: Array | None) -> Array:
        """`b_h` is the second bias, of the candidate alone or of all three gates."""
        H, before = h.shape[0], isinstance(w_h, ResetBefore)
        z_h = by_gate((w_h.gates if before else w_h)(h), 2 if before else 3, self.heads)
        check_row(z_x, "z_x", 3 * H)
        if b_h is not None:
            check_row(b_h, "params.extra", H, 3 * H)
        b_r = b_z = None
        if b_h is not None and b_h.shape != h.shape:
            b_r, b_z, b_h = gates_of(b_h, 3, self.by_unit)
        x_r, x_z, x_n = gates_of(z_x, 3, self.by_unit)
        h_r, h_z, *h_n = gates_of(z_h, 2 if before else 3, self.by_unit)
        r = self.gate(clipped(x_r + plus(h_r, b_r), self.clip))
        z = self.gate(clipped(x_z + plus(h_z, b_z), self.clip))
        if before:
            n = x_n + plus(w_h.candidate(r * h), b_h)
        else:
            n = x_n + r * plus(h_n[0], b_h)
        return (1 - z) * self.candidate(clipped(n, self.clip)) + z * h


def plus(a: Array, b: Array | None) -> Array:
    return a if b is None else a + b


gru_update = GRUUpdate()
