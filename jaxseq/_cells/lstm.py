"""Long short-term memory.

    i_t = σ(W_xi x_t + W_hi h_{t-1} + b_i)        input gate
    f_t = σ(W_xf x_t + W_hf h_{t-1} + b_f)        forget gate
    g_t = tanh(W_xg x_t + W_hg h_{t-1} + b_g)     candidate
    o_t = σ(W_xo x_t + W_ho h_{t-1} + b_o)        output gate
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t               cell
    h_t = o_t ⊙ tanh(c_t)                         hidden, also the output

Weights are stored side by side in the order i, f, g, o, the order of cuDNN,
PyTorch and Flax. A second bias b_h, if there is one, is added to b. For peepholes,
projections and other variants see `lstm_cell`.

Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997,
https://doi.org/10.1162/neco.1997.9.8.1735; the forget gate is from Gers,
Schmidhuber and Cummins, "Learning to Forget", 2000,
https://doi.org/10.1162/089976600300015015. Symbols follow Graves, "Generating
Sequences With Recurrent Neural Networks", 2013, https://arxiv.org/abs/1308.0850,
equations 7 to 11 without peepholes, but for g, which Graves leaves unnamed.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseq._base.check import check_number
from jaxseq._cells.check import check_params
from jaxseq._cells.init import init_gates
from jaxseq._cells.lstm_update import LSTMState, lstm_update
from jaxseq._cells.units import in_units
from jaxseq._engine.door import sequence, step
from jaxseq._engine.widths import zeros_like_widths


class LSTMParams(NamedTuple):
    """Weights of an LSTM for input width D and hidden width H; gates i f g o.

    Fields:
        w_x: of the input, `(D, 4H)`.
        w_h: of the hidden state, `(H, 4H)`.
        b: bias, `(4H,)`; none if None.
        b_h: a second bias, `(4H,)`, as PyTorch and cuDNN have it; none if None.

    The gates may also have an axis of their own: `(D, 4, H)`, `(H, 4, H)` and `(4, H)`,
    in all of them. The hidden units can then be split over devices.
    """

    w_x: Array
    w_h: Array
    b: Array | None
    b_h: Array | None = None


def lstm_init(
    key: Array,
    D: int,
    H: int,
    *,
    forget_bias: ArrayLike = 1.0,
    dtype: Any = jnp.float32,
) -> LSTMParams:
    """Draws weights for input width `D` and hidden width `H`.

    Args:
        key: a random key.
        D: input width.
        H: hidden width.
        forget_bias: bias of the forget gate, of all units or each, `(H,)`. At 1 the
            cell remembers from the start; see Jozefowicz, Zaremba and Sutskever,
            "An Empirical Exploration of Recurrent Network Architectures", 2015
            (https://proceedings.mlr.press/v37/jozefowicz15.html).
        dtype: dtype of the weights.

    Returns:
        `w_x` Glorot uniform and `w_h` orthogonal, gate by gate; `b` zero but for
        the forget gate.

    Raises:
        ValueError: if `D` or `H` is less than 1, `dtype` is not a float, or
            `forget_bias` not finite.

    See Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", 2010, and Saxe et al., "Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks", 2014
    (https://arxiv.org/abs/1312.6120), for the two distributions.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> params.w_x.shape, params.w_h.shape, params.b.shape
        ((3, 32), (8, 32), (32,))
    """
    w_x, w_h, b = init_gates(key, D, H, 4, dtype)
    finite = lambda b: abs(b) < float("inf")
    check_number(forget_bias, "forget_bias", "a finite number", finite, (H,))
    forget_bias = jnp.asarray(forget_bias, dtype)
    return LSTMParams(w_x, w_h, b.at[H : 2 * H].set(forget_bias))


def lstm_zeros(params: LSTMParams, batch: int | tuple[int, ...] = ()) -> LSTMState:
    """Returns the state of zeros.

    Args:
        params: weights for input width D and hidden width H.
        batch: axes in front, a tuple or one size.

    Returns:
        An LSTMState with parts `(*batch, H)`, in the dtype of the weights; float32 for
        the 16-bit dtypes.

    Raises:
        ValueError: if `batch` is not a size or a tuple of sizes.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> jaxseq.lstm_zeros(params, 5).c.shape
        (5, 8)
    """
    params = check_params(params, LSTMParams, 4)
    return zeros_like_widths(_widths(params), batch, params.w_x.dtype)


def lstm_step(
    params: LSTMParams,
    state: LSTMState,
    x: ArrayLike,
    *,
    resets: ArrayLike | None = None,
    start: LSTMState | None = None,
) -> tuple[LSTMState, Array]:
    """Does one step of an LSTM; `partial(lstm_step, params)` is a `lax.scan` body.

    Args:
        params: weights for input width D and hidden width H.
        state: previous hidden and cell states, each `(..., H)`.
        x: input at this step, `(..., D)`.
        resets: booleans `(...)`, where the state is set to `start` before the step.
        start: that state, of one row or `(..., H)`; zeros if None.

    Returns:
        `(state, y)`: the new state and its hidden part, `(..., H)`, in the dtype
        of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> state, x = jaxseq.lstm_zeros(params, 5), jnp.ones((5, 3))
        >>> state, y = jaxseq.lstm_step(params, state, x)
        >>> y.shape
        (5, 8)
    """
    params = check_params(params, LSTMParams, 4)
    return step(
        *in_units(lstm_update, params),
        state,
        x,
        zeros=_widths(params),
        start=start,
        resets=resets,
    )


def lstm(
    params: LSTMParams,
    x: ArrayLike,
    state: LSTMState | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: LSTMState | None = None,
    reverse: bool = False,
    remat: int | None = None,
    implementation: str | None = None,
) -> tuple[LSTMState, Array]:
    """Runs an LSTM over time.

    Args:
        params: weights for input width D and hidden width H.
        x: inputs, `(..., T, D)`, in the dtype of `params`.
        state: initial hidden and cell states, each `(..., H)`; zeros if None.
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
        `(state, y)`: the final state, each part `(..., H)`, and the hidden state
        at every step, `(..., T, H)`, in the dtype of `x`. For the 16-bit dtypes
        the state, like all sums, is float32.

    Raises:
        ValueError: if a shape or dtype does not fit, or a length is not in 0…T. A
            length known only under `jit` or `vmap` is clipped to it instead.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> state, y = jaxseq.lstm(params, jnp.ones((5, 20, 3)))
        >>> y.shape, state.c.shape
        ((5, 20, 8), (5, 8))

        Where time comes first, as in a rollout `(T, B, D)`, `jax.vmap` over the batch:

        >>> x, resets = jnp.ones((20, 5, 3)), jnp.zeros((20, 5), bool)
        >>> run = lambda x, resets: jaxseq.lstm(params, x, resets=resets)
        >>> state, y = jax.vmap(run, in_axes=1, out_axes=(0, 1))(x, resets)
        >>> y.shape
        (20, 5, 8)
    """
    params = check_params(params, LSTMParams, 4)
    return sequence(
        *in_units(lstm_update, params),
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


def _widths(params: LSTMParams) -> Any:
    H: Any = params.w_h.shape[0]
    return LSTMState(H, H)
