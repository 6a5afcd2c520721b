"""The whole state at every step, not its first part alone."""

from typing import Any

from jax.typing import ArrayLike

from jaxseq._cells.cell import State, Update
from jaxseq._cells.check import check_params
from jaxseq._cells.lstm import LSTMParams
from jaxseq._cells.lstm_update import LSTMState, lstm_update
from jaxseq._cells.units import in_units
from jaxseq._engine.door import sequence
from jaxseq._engine.params import CellParams


def cell_states(
    update: Update[State],
    params: CellParams,
    x: Any,
    state: State | ArrayLike | None = None,
    *,
    zeros: Any = None,
    start: State | ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
) -> State:
    """Runs a cell of one's own over time, and returns its state at every step.

    `cell` gives the first part of the state alone, by faster ways; this is a
    `jax.lax.scan`, in whose gradient those of the matrices are summed at every step.

    Args:
        update: the cell's equations; see `cell`.
        params: its weights.
        x: inputs `(..., T, D)`, in the dtype of `params`; or a tree of such.
        state: initial state, parts `(..., F)`. If None, the run begins at `start`.
        zeros: widths of the state, as for `cell_zeros`; needed if there is neither
            a `state` nor a `start`, and the run begins at zeros.
        start: where a reset sets the state, and where the run begins if `state` is
            None: of one row or `(..., F)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
            Past them the state stands still.
        mask: booleans `(..., T)`, which steps are valid; see `cell`.
        resets: booleans `(..., T)`; where True a new segment starts; see `cell`.
        reverse: whether to run from the last valid step to the first. States stay
            at the position of their input.

    Returns:
        The states after each step, a state with parts `(..., T, F)`; float32 for the
        16-bit dtypes. The final state is at the last step, or the first if `reverse`.

    Raises:
        ValueError: if a shape or dtype does not fit, or `update` does not give a
            state like the one it is given.

    Example:
        Of an LSTM, as `lstm_states` does it:

        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> params = jaxseq.CellParams(*params)
        >>> widths, x = jaxseq.LSTMState(8, 8), jnp.ones((5, 20, 3))
        >>> states = jaxseq.cell_states(jaxseq.LSTM.update, params, x, zeros=widths)
        >>> states.h.shape, states.c.shape
        ((5, 20, 8), (5, 20, 8))
    """
    _, states = sequence(
        update,
        params,
        x,
        state,
        zeros=zeros,
        start=start,
        lengths=lengths,
        mask=mask,
        resets=resets,
        reverse=reverse,
        states=True,
    )
    return states


def lstm_states(
    params: LSTMParams,
    x: ArrayLike,
    state: LSTMState | None = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    start: LSTMState | None = None,
    reverse: bool = False,
) -> LSTMState:
    """Runs an LSTM over time, and returns its hidden and cell states at every step.

    It is `cell_states` of an LSTM: a `jax.lax.scan`, and its gradient the slower one of
    that. The state of `rnn` and `gru` is `y`; only the LSTM has more.

    Args:
        params: weights for input width D and hidden width H.
        x: inputs, `(..., T, D)`, in the dtype of `params`.
        state: initial hidden and cell states, each `(..., H)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
            Past them the state stands still.
        mask: booleans `(..., T)`, which steps are valid; see `lstm`.
        resets: booleans `(..., T)`; where True a new segment starts; see `lstm`.
        start: where a reset sets the state, and where the run begins if `state` is
            None: of one row or `(..., H)`; zeros if None.
        reverse: whether to run from the last valid step to the first. States stay
            at the position of their input.

    Returns:
        The states after each step, an LSTMState with parts `(..., T, H)`; float32 for
        the 16-bit dtypes.

    Raises:
        ValueError: if a shape or dtype does not fit, or a length is not in 0…T.

    Example:
        >>> params = jaxseq.lstm_init(jax.random.key(0), 3, 8)
        >>> states = jaxseq.lstm_states(params, jnp.ones((5, 20, 3)))
        >>> states.c.shape
        (5, 20, 8)
    """
    params = check_params(params, LSTMParams, 4)
    H: Any = params.w_h.shape[0]
    return cell_states(
        *in_units(lstm_update, params),
        x,
        state,
        zeros=LSTMState(H, H),
        start=start,
        lengths=lengths,
        mask=mask,
        resets=resets,
        reverse=reverse,
    )
