"""Elman network, also called simple or vanilla recurrent network.

    h_t = φ(W_x x_t + W_h h_{t-1} + b)      hidden, also the output

φ is tanh, or another pointwise function such as relu.

Elman, "Finding Structure in Time", 1990,
https://doi.org/10.1207/s15516709cog1402_1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxseq._cell import Maps, state_dtype
from jaxseq._check import check_params
from jaxseq._init import init_gates
from jaxseq._run import run, run_step


class RNNParams(NamedTuple):
    """Weights of an Elman network for input width D and hidden width H."""

    w_x: Array  # (D, H)
    w_h: Array  # (H, H)
    b: Array | None  # (H,)


class RNNUpdate(NamedTuple):
    """The update of an RNN; two with one activation are equal."""

    activation: Callable[[Array], Array]

    def __call__(self, z_x: Array, z_h: Array, h: Array) -> Array:
        return self.activation(z_x + z_h)


def rnn_init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> RNNParams:
    """Draws weights for input width `D` and hidden width `H`.

    Args:
        key: a random key.
        D: input width.
        H: hidden width.
        dtype: dtype of the weights.

    Returns:
        `w_x` Glorot uniform, `w_h` orthogonal, `b` zero.

    Raises:
        ValueError: if `D` or `H` is less than 1 or `dtype` is not a float.

    The two distributions and their sources are those of `lstm_init`.
    """
    return RNNParams(*init_gates(key, D, H, 1, dtype))


def rnn_zeros(params: RNNParams, batch: tuple[int, ...] = ()) -> Array:
    """Returns the state `h` of zeros, `(*batch, H)`; float32 for 16-bit weights."""
    params = check_params(params, RNNParams, 1)
    shape = (*batch, params.w_h.shape[0])
    return jnp.zeros(shape, state_dtype(params.w_x.dtype))


def rnn_step(
    params: RNNParams,
    state: Array,
    x: Array,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
) -> tuple[Array, Array]:
    """Does one step of an Elman network.

    Args:
        params: weights for input width D and hidden width H.
        state: previous hidden state, `(..., H)`.
        x: input at this step, `(..., D)`.
        activation: pointwise function φ.

    Returns:
        `(state, y)`: the new hidden state twice, `(..., H)`, `y` in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit.
    """
    params = check_params(params, RNNParams, 1)
    update = RNNUpdate(activation)
    return run_step(update, Maps(*params), partial(rnn_zeros, params), state, x)


def rnn(
    params: RNNParams,
    x: Array,
    state: Array | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    activation: Callable[[Array], Array] = jnp.tanh,
    remat: int | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Runs an Elman network over time.

    Args:
        params: weights for input width D and hidden width H.
        x: inputs, `(..., T, D)`, in the dtype of `params`.
        state: initial hidden state, `(..., H)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
            Past them the state stands still and `y` is zero.
        resets: booleans `(..., T)`; where True a new segment starts, from a state
            of zeros, with this step as its first (its last if `reverse`).
        reverse: whether to run from the last valid step to the first. `y` stays
            at the position of its input.
        activation: pointwise function φ.
        remat: for long inputs, how many steps lie between two states that are kept
            for the backward pass; the steps between are run again in it. Memory is
            least near √T, and time grows by about a third. None keeps all steps.
        implementation: "scan" is `jax.lax.scan`; None is the fastest one here.

    Returns:
        `(state, y)`: the final hidden state, `(..., H)`, and the hidden state at
        every step, `(..., T, H)`, in the dtype of `x`. For the 16-bit dtypes the
        state, like all sums, is float32.

    Raises:
        ValueError: if a shape or dtype does not fit, or a length is not in 0…T. A
            length known only under `jit` or `vmap` is clipped to it instead.
    """
    params = check_params(params, RNNParams, 1)
    return run(
        RNNUpdate(activation),
        Maps(*params),
        partial(rnn_zeros, params),
        x,
        state,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        remat=remat,
        implementation=implementation,
    )
