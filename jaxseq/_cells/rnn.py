"""Elman network, also called simple or vanilla recurrent network.

    h_t = φ(W_x x_t + W_h h_{t-1} + b + b_h)      hidden, also the output

φ is tanh, or another pointwise function such as relu. Of the two biases there may be
one or none; `rnn_init` gives b alone.

Elman, "Finding Structure in Time", 1990,
https://doi.org/10.1207/s15516709cog1402_1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import check, check_callable
from jaxseq._cells.check import check_params, check_row
from jaxseq._cells.init import init_gates
from jaxseq._cells.lstm_update import clipped
from jaxseq._engine.door import sequence, step
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths


class RNNParams(NamedTuple):
    """Weights of an Elman network for input width D and hidden width H.

    Fields:
        w_x: of the input, `(D, H)`.
        w_h: of the hidden state, `(H, H)`.
        b: bias, `(H,)`; none if None.
        b_h: a second bias, `(H,)`, as PyTorch and cuDNN have it; none if None.
    """

    w_x: Array
    w_h: Array
    b: Array | None
    b_h: Array | None = None


@dataclass(frozen=True)
class RNNUpdate:
    """The update of an RNN; two with the same fields are equal."""

    activation: Callable[[Array], Array]
    clip: float | None = None

    def __call__(self, z_x: Array, h: Array, w_h: Any, b_h: Array | None) -> Array:
        z_h = w_h(h)
        if b_h is not None:
            check_row(b_h, "params.extra", z_h.shape[0])
            z_h = z_h + b_h
        z = clipped(z_x + z_h, self.clip)
        new = self.activation(z)
        expected = f"{z.dtype} {z.shape}"
        is_array = hasattr(new, "dtype") and hasattr(new, "shape")
        got = f"{new.dtype} {new.shape}" if is_array else type(new).__name__
        check(got == expected, "activation", f"a function that gives {expected}", got)
        return new


TANH = RNNUpdate(jnp.tanh)


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

    Example:
        >>> params = jaxseq.rnn_init(jax.random.key(0), 3, 8)
        >>> params.w_x.shape, params.w_h.shape, params.b.shape
        ((3, 8), (8, 8), (8,))
    """
    return RNNParams(*init_gates(key, D, H, 1, dtype))


def rnn_zeros(params: RNNParams, batch: int | tuple[int, ...] = ()) -> Array:
    """Returns the state of zeros.

    Args:
        params: weights for input width D and hidden width H.
        batch: axes in front, a tuple or one size.

    Returns:
        `h`, `(*batch, H)`, in the dtype of the weights; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if `batch` is not a size or a tuple of sizes.

    Example:
        >>> params = jaxseq.rnn_init(jax.random.key(0), 3, 8)
        >>> jaxseq.rnn_zeros(params, 5).shape
        (5, 8)
    """
    params = check_params(params, RNNParams, 1)
    return zeros_like_widths(_widths(params), batch, params.w_x.dtype)


def rnn_step(
    params: RNNParams,
    state: ArrayLike,
    x: ArrayLike,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    resets: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Does one step of an Elman network.

    Args:
        params: weights for input width D and hidden width H.
        state: previous hidden state, `(..., H)`.
        x: input at this step, `(..., D)`.
        activation: pointwise function φ.
        resets: booleans `(...)`, where the state is set to `start` before the step.
        start: that state, of one row or `(..., H)`; zeros if None.

    Returns:
        `(state, y)`: the new hidden state twice, `(..., H)`, `y` in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Example:
        >>> params = jaxseq.rnn_init(jax.random.key(0), 3, 8)
        >>> state, x = jaxseq.rnn_zeros(params, 5), jnp.ones((5, 3))
        >>> state, y = jaxseq.rnn_step(params, state, x)
        >>> y.shape
        (5, 8)
    """
    params = check_params(params, RNNParams, 1)
    check_callable(activation, "activation")
    return step(
        RNNUpdate(activation),
        _cell_params(params),
        state,
        x,
        zeros=_widths(params),
        start=start,
        resets=resets,
        owner=activation,
    )


def rnn(
    params: RNNParams,
    x: ArrayLike,
    state: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: ArrayLike | None = None,
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
        mask: booleans `(..., T)`, which steps are valid; the run is as if the others
            were not there, so left padding and holes are possible. With `lengths`
            too, a step is valid if both say so.
        resets: booleans `(..., T)`; where True a new segment starts, from `start`,
            with this step as its first (its last if `reverse`). At a step that is
            not valid it is ignored.
        start: where a reset sets the state, and where the run begins if `state` is
            None: of one row or `(..., H)`; zeros if None.
        reverse: whether to run from the last valid step to the first. `y` stays
            at the position of its input.
        activation: pointwise function φ.
        remat: for long inputs, how many steps lie between two states that are kept
            for the backward pass; the steps between are run again in it. Memory is
            least near √T, and time grows by about a third. None keeps all steps.
        implementation: "scan" is `jax.lax.scan`, "loop" a loop with a backward pass
            of its own, "pallas" a kernel for TPUs, "native" one in C++ for CPUs; None
            is the fastest of those that run here.

    Returns:
        `(state, y)`: the final hidden state, `(..., H)`, and the hidden state at
        every step, `(..., T, H)`, in the dtype of `x`. For the 16-bit dtypes the
        state, like all sums, is float32.

    Raises:
        ValueError: if a shape or dtype does not fit, or a length is not in 0…T. A
            length known only under `jit` or `vmap` is clipped to it instead.

    Example:
        >>> params = jaxseq.rnn_init(jax.random.key(0), 3, 8)
        >>> state, y = jaxseq.rnn(params, jnp.ones((5, 20, 3)))
        >>> y.shape, state.shape
        ((5, 20, 8), (5, 8))

        Where time comes first, as in a rollout `(T, B, D)`, `jax.vmap` over the batch:

        >>> x, resets = jnp.ones((20, 5, 3)), jnp.zeros((20, 5), bool)
        >>> run = lambda x, resets: jaxseq.rnn(params, x, resets=resets)
        >>> state, y = jax.vmap(run, in_axes=1, out_axes=(0, 1))(x, resets)
        >>> y.shape
        (20, 5, 8)
    """
    params = check_params(params, RNNParams, 1)
    check_callable(activation, "activation")
    return sequence(
        RNNUpdate(activation),
        _cell_params(params),
        x,
        state,
        zeros=_widths(params),
        start=start,
        lengths=lengths,
        mask=mask,
        resets=resets,
        reverse=reverse,
        remat=remat,
        implementation=implementation,
        owner=activation,
    )


def _cell_params(params: RNNParams) -> CellParams:
    return CellParams(*params)


def _widths(params: RNNParams) -> Any:
    return params.w_h.shape[0]
