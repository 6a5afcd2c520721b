"""Gated recurrent unit, with the reset gate after the recurrent product.

    r_t = σ(W_xr x_t + W_hr h_{t-1} + b_r)                    reset gate
    z_t = σ(W_xz x_t + W_hz h_{t-1} + b_z)                    update gate
    n_t = tanh(W_xn x_t + b_n + r_t ⊙ (W_hn h_{t-1} + b_hn))  candidate
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}                     hidden, also the output

Weights are stored side by side in the order r, z, n. This is the variant of
cuDNN, PyTorch and Keras (`reset_after=True`): the reset gate acts on the
recurrent product and not on h_{t-1} before it, so the product is one for all
gates, and there is a second bias b_hn inside the gate. For the reset gate before
the product, and other variants, see `gru_cell`.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
Statistical Machine Translation", 2014, https://arxiv.org/abs/1406.1078,
equations 5 to 8 but for the place of the reset gate.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._cells.check import check_params
from jaxseq._cells.gru_update import gru_update
from jaxseq._cells.init import init_gates
from jaxseq._cells.units import in_units
from jaxseq._engine.door import sequence, step
from jaxseq._engine.widths import zeros_like_widths


class GRUParams(NamedTuple):
    """Weights of a GRU for input width D and hidden width H; gates r z n.

    Fields:
        w_x: of the input, `(D, 3H)`.
        w_h: of the hidden state, `(H, 3H)`.
        b: bias, `(3H,)`; none if None.
        b_hn: bias of the recurrent product: of the candidate's part alone, `(H,)`, or
            of all three gates, `(3H,)`, as PyTorch and cuDNN have it; none if None.

    The gates may also have an axis of their own: `(D, 3, H)`, `(H, 3, H)` and `(3, H)`,
    in all but a `b_hn` `(H,)`. The hidden units can then be split over devices.
    """

    w_x: Array
    w_h: Array
    b: Array | None
    b_hn: Array | None


def gru_init(key: Array, D: int, H: int, *, dtype: Any = jnp.float32) -> GRUParams:
    """Draws weights for input width `D` and hidden width `H`.

    Args:
        key: a random key.
        D: input width.
        H: hidden width.
        dtype: dtype of the weights.

    Returns:
        `w_x` Glorot uniform and `w_h` orthogonal, gate by gate; `b` and `b_hn` zero.

    Raises:
        ValueError: if `D` or `H` is less than 1 or `dtype` is not a float.

    The two distributions and their sources are those of `lstm_init`.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> params.w_x.shape, params.w_h.shape, params.b.shape
        ((3, 24), (8, 24), (24,))
    """
    return GRUParams(*init_gates(key, D, H, 3, dtype), jnp.zeros(H, dtype))


def gru_zeros(params: GRUParams, batch: int | tuple[int, ...] = ()) -> Array:
    """Returns the state of zeros.

    Args:
        params: weights for input width D and hidden width H.
        batch: axes in front, a tuple or one size.

    Returns:
        `h`, `(*batch, H)`, in the dtype of the weights; float32 for the 16-bit dtypes.

    Raises:
        ValueError: if `batch` is not a size or a tuple of sizes.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> jaxseq.gru_zeros(params, 5).shape
        (5, 8)
    """
    params = check_params(params, GRUParams, 3)
    return zeros_like_widths(_widths(params), batch, params.w_x.dtype)


def gru_step(
    params: GRUParams,
    state: ArrayLike,
    x: ArrayLike,
    *,
    resets: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Does one step of a GRU; `partial(gru_step, params)` is a `lax.scan` body.

    Args:
        params: weights for input width D and hidden width H.
        state: previous hidden state, `(..., H)`.
        x: input at this step, `(..., D)`.
        resets: booleans `(...)`, where the state is set to `start` before the step.
        start: that state, of one row or `(..., H)`; zeros if None.

    Returns:
        `(state, y)`: the new hidden state twice, `(..., H)`, `y` in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Example:
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> state, x = jaxseq.gru_zeros(params, 5), jnp.ones((5, 3))
        >>> state, y = jaxseq.gru_step(params, state, x)
        >>> y.shape
        (5, 8)
    """
    params = check_params(params, GRUParams, 3)
    return step(
        *in_units(gru_update, params),
        state,
        x,
        zeros=_widths(params),
        start=start,
        resets=resets,
    )


def gru(
    params: GRUParams,
    x: ArrayLike,
    state: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: ArrayLike | None = None,
    reverse: bool = False,
    remat: int | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Runs a GRU over time.

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
        >>> params = jaxseq.gru_init(jax.random.key(0), 3, 8)
        >>> state, y = jaxseq.gru(params, jnp.ones((5, 20, 3)))
        >>> y.shape, state.shape
        ((5, 20, 8), (5, 8))

        Where time comes first, as in a rollout `(T, B, D)`, `jax.vmap` over the batch:

        >>> x, resets = jnp.ones((20, 5, 3)), jnp.zeros((20, 5), bool)
        >>> run = lambda x, resets: jaxseq.gru(params, x, resets=resets)
        >>> state, y = jax.vmap(run, in_axes=1, out_axes=(0, 1))(x, resets)
        >>> y.shape
        (20, 5, 8)
    """
    params = check_params(params, GRUParams, 3)
    return sequence(
        *in_units(gru_update, params),
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
    )


def _widths(params: GRUParams) -> Any:
    return params.w_h.shape[0]
