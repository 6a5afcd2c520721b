"""The equations of long short-term memory, once for all its variants.

    i_t = σ(W_xi x_t + W_hi h_{t-1} + p_i ⊙ c_{t-1} + b_i)    input gate
    f_t = σ(W_xf x_t + W_hf h_{t-1} + p_f ⊙ c_{t-1} + b_f)    forget gate
    g_t = φ(W_xg x_t + W_hg h_{t-1} + b_g)                    candidate
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t                           cell
    o_t = σ(W_xo x_t + W_ho h_{t-1} + p_o ⊙ c_t + b_o)        output gate
    h_t = W_r (o_t ⊙ ψ(c_t))                                  hidden, also the output

In a plain LSTM φ and ψ are tanh, there are no peepholes p, and W_r is the identity.
The sources of the variants are named in `lstm_cell`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._cells.check import check_row
from jaxseq._cells.units import gates_of

Function = Callable[[Array], Array]


class LSTMState(NamedTuple):
    """State of an LSTM.

    Fields:
        h: hidden state, which is the output too, `(..., H)`.
        c: cell state, `(..., H)`.
    """

    h: Array
    c: Array


class Peepholes(NamedTuple):
    """Weights from the cell state to the gates of an LSTM with H cells.

    Fields:
        i: to the input gate, `(H,)`.
        f: to the forget gate, `(H,)`.
        o: to the output gate, `(H,)`.
    """

    i: Array
    f: Array
    o: Array


class LSTMNorms(NamedTuple):
    """Gains and biases of the layer normalization in an LSTM with H cells.

    Fields:
        x: gain of the input map, `(4H,)`.
        h: gain of the recurrent product, `(4H,)`.
        c: gain of the cell state, `(H,)`.
        c_bias: bias of the cell state, `(H,)`.
        b: bias of the gates, after the norms, `(4H,)`.
    """

    x: Array
    h: Array
    c: Array
    c_bias: Array
    b: Array


class LSTMExtra(NamedTuple):
    """What a variant of the LSTM has besides its matrices and `b`; see `lstm_cell`.

    Fields:
        b_h: a second bias, of the recurrent product, `(4H,)`; none if None.
        peepholes: none if None.
        norms: those of layer normalization; none if None.
    """

    b_h: Array | None = None
    peepholes: Peepholes | None = None
    norms: LSTMNorms | None = None


class Projected(NamedTuple):
    """Recurrent matrices of an LSTM with H cells whose output is projected to width P.

    Fields:
        gates: `(P, 4H)`.
        projection: `(H, P)`.
    """

    gates: Any
    projection: Any


@dataclass(frozen=True)
class LSTMUpdate:
    """The update of an LSTM; two with the same fields are equal."""

    gate: Function = jax.nn.sigmoid
    candidate: Function = jnp.tanh
    output: Function = jnp.tanh
    clip: float | None = None
    coupled: bool = False
    heads: int = 1
    epsilon: float = 1e-5
    by_unit: bool = False  # whether rows have all gates of a unit side by side

    def __call__(self, z_x: Array, state: LSTMState, w_h: Any, extra: Any) -> LSTMState:
        """`extra` is an `LSTMExtra`, or `b_h` alone."""
        own = extra if isinstance(extra, LSTMExtra) else LSTMExtra(extra)
        h, c = state
        z_h = (w_h.gates if isinstance(w_h, Projected) else w_h)(h)
        z_h = by_gate(z_h, 4, self.heads)
        check_row(z_x, "z_x", z_h.shape[0])
        check_extra(own, z_h.shape[0])
        z_h = z_h if own.b_h is None else z_h + own.b_h
        if own.norms is not None:
            z_x = self._norm(z_x) * own.norms.x + own.norms.b
            z_h = self._norm(z_h) * own.norms.h
        i, f, g, o = gates_of(z_x + z_h, 4, self.by_unit)
        if own.peepholes is not None:
            i, f = i + own.peepholes.i * c, f + own.peepholes.f * c
        i = self.gate(clipped(i, self.clip))
        f = 1 - i if self.coupled else self.gate(clipped(f, self.clip))
        c = f * c + i * self.candidate(clipped(g, self.clip))
        if own.peepholes is not None:
            o = o + own.peepholes.o * c
        seen = c
        if own.norms is not None:
            seen = self._norm(c) * own.norms.c + own.norms.c_bias
        h = self.gate(clipped(o, self.clip)) * self.output(seen)
        return LSTMState(w_h.projection(h) if isinstance(w_h, Projected) else h, c)

    def _norm(self, a: Array) -> Array:
        return (a - a.mean()) / jnp.sqrt(a.var() + self.epsilon)


def check_extra(extra: LSTMExtra, Z: int) -> None:
    """Checks the shapes for gates of width Z together, as others would broadcast."""
    n, name = Z // 4, "params.extra"
    if extra.b_h is not None:
        check_row(extra.b_h, f"{name}.b_h", Z)
    for field, a in zip(Peepholes._fields, extra.peepholes or (), strict=False):
        check_row(a, f"{name}.peepholes.{field}", n)
    if extra.norms is not None:
        widths = LSTMNorms._fields, extra.norms, (Z, Z, n, n, Z)
        for field, a, width in zip(*widths, strict=True):
            check_row(a, f"{name}.norms.{field}", width)


def clipped(a: Array, limit: float | None) -> Array:
    return a if limit is None else jnp.clip(a, -limit, limit)


def by_gate(z: Array, gates: int, heads: int) -> Array:
    """What blocks along a diagonal give, head by head, in the order of the gates."""
    if heads == 1:
        return z
    return z.reshape(heads, gates, -1).swapaxes(0, 1).reshape(-1)


lstm_update = LSTMUpdate()
