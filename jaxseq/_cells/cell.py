"""A cell of one's own: its update is all that is written.

An update is the paper's equations for one row and one step:

    def update(z_x, state, w_h, extra):
        ...
        return state

`z_x` is the input map x_t w_x + b; `state` an array or a NamedTuple whose first field
is the output; `w_h` the matrices of the recurrent part, each a function: `w_h(h)` is
h times that matrix; `extra` whatever else the cell has to learn. The engine does the
products, keeps what the backward pass needs, and makes the gradient of each matrix
one product after the loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from jax import Array
from jax.typing import ArrayLike

from jaxseq._engine.door import sequence, step
from jaxseq._engine.params import CellParams

State = TypeVar("State")
Update = Callable[[Any, State, Any, Any], State]


class Cell(NamedTuple):
    """An update with how its weights and its state begin.

    `LSTM`, `GRU` and `RNN` are the cells of `lstm`, `gru` and `rnn`.

    Fields:
        update: the equations of one step, `(z_x, state, w_h, extra) -> state`; see
            `cell`.
        init: draws weights, `(key, D, H, *, dtype) -> weights`.
        zeros: the first state, `(weights, batch) -> state`.
    """

    update: Callable[..., Any]
    init: Callable[..., Any]
    zeros: Callable[..., Any]


def cell_step(
    update: Update[State],
    params: CellParams,
    state: State | ArrayLike,
    x: Any,
    *,
    resets: ArrayLike | None = None,
    start: State | ArrayLike | None = None,
) -> tuple[State, Array]:
    """Does one step of a cell; `partial(cell_step, update, params)` is a scan body.

    In a scan of one's own, autodiff sums the gradient of each matrix at every step; a
    sequence that is known beforehand is faster by `cell`.

    Args:
        update: the cell's equations; see `cell`.
        params: its weights.
        state: previous state, parts `(..., F)`.
        x: input at this step, `(..., D)`, or a tree of such.
        resets: booleans `(...)`, where the state is set to `start` before the step.
        start: that state, of one row or `(..., F)`; zeros if None.

    Returns:
        `(state, y)`: the new state, and its first part in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit, or `update` is not one.

    Example:
        >>> elman = lambda z_x, h, w_h, _: jnp.tanh(z_x + w_h(h))
        >>> params = jaxseq.cell_init(jax.random.key(0), 3, 8, (8, 8))
        >>> h, x = jaxseq.cell_zeros(8, 5), jnp.ones((5, 3))
        >>> h, y = jaxseq.cell_step(elman, params, h, x)
        >>> y.shape
        (5, 8)
    """
    return step(update, params, state, x, resets=resets, start=start)


def cell(
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
    remat: int | None = None,
    implementation: str | None = None,
) -> tuple[State, Array]:
    """Runs a cell of one's own over time.

    Args:
        update: the equations of one row and one step, `(z_x, state, w_h, extra) ->
            state`. `z_x` `(Z,)` is the input map; `state` is an array `(F,)` or a
            NamedTuple of such, whose first field is an array and the output; `w_h`
            has the tree of `params.w_h`, each matrix a function `(I,) -> (O,)` to be
            called at most once, and not inside `cond`, `scan`, `jit`, `vmap`,
            `checkpoint` or a derivative; `extra` is `params.extra`. For 16-bit dtypes
            all of these are float32. Arrays that it closes over get their gradients
            too. What is found out about it is kept as long as it lives: pass the same
            function again, and a call outside `jit` compiles nothing.
        params: weights, as of `cell_init`.
        x: inputs `(..., T, D)`, in the dtype of `params`; or a tree of such. Where
            `params.w_x` has None in it, that input is given to the update as it is;
            where it has a tree of several matrices for one input, they all read it.
        state: initial state, parts `(..., F)`. If None, the run begins at `start`.
        zeros: widths of the state, as for `cell_zeros`; needed if there is neither
            a `state` nor a `start`, and the run begins at zeros.
        start: where a reset sets the state, and where the run begins if `state` is
            None: of one row or `(..., F)`; zeros if None.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
            Past them the state stands still and `y` is zero.
        mask: booleans `(..., T)`, which steps are valid; the run is as if the others
            were not there, so left padding and holes are possible. With `lengths`
            too, a step is valid if both say so.
        resets: booleans `(..., T)`; where True a new segment starts, from `start`,
            with this step as its first (its last if `reverse`). At a step that is
            not valid it is ignored.
        reverse: whether to run from the last valid step to the first. `y` stays
            at the position of its input.
        remat: for long inputs, how many steps lie between two states that are kept
            for the backward pass; the steps between are run again in it. Memory is
            least near √T, and time grows by about a third. None keeps all steps.
        implementation: "scan" is `jax.lax.scan`, "loop" a loop with a backward pass
            of its own, "pallas" a kernel for TPUs, "native" one in C++ for CPUs; None
            is the fastest of those that run here, and "scan" for an update with an
            effect, with complex numbers, or without a derivative in reverse mode.
            Automatic checks of `checkify` see into an update with "scan" alone.

    Returns:
        `(state, y)`: the final state, and its first part at every step, `(..., T, F)`,
        in the dtype of `x`.

    Raises:
        ValueError: if a shape or dtype does not fit, or `update` does not give a
            state like the one it is given.

    Example:
        A minimal gated unit (Zhou et al., 2016, https://arxiv.org/abs/1603.09420):

        >>> def mgu(z_x, h, w_h, _):
        ...     x_f, x_n = jnp.split(z_x, 2)
        ...     f = jax.nn.sigmoid(x_f + w_h["forget"](h))
        ...     return (1 - f) * h + f * jnp.tanh(x_n + w_h["new"](f * h))
        >>> w_h = {"forget": (8, 8), "new": (8, 8)}
        >>> params = jaxseq.cell_init(jax.random.key(0), 3, 16, w_h)
        >>> h, y = jaxseq.cell(mgu, params, jnp.ones((5, 20, 3)), zeros=8)
        >>> y.shape
        (5, 20, 8)

        Where time comes first, as in a rollout `(T, B, D)`, `jax.vmap` over the batch:

        >>> run = lambda x: jaxseq.cell(mgu, params, x, zeros=8)
        >>> h, y = jax.vmap(run, in_axes=1, out_axes=(0, 1))(jnp.ones((20, 5, 3)))
        >>> y.shape
        (20, 5, 8)
    """
    return sequence(
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
        remat=remat,
        implementation=implementation,
    )
