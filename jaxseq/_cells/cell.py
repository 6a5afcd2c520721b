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

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_dtype, check_key, check_sizes
from jaxseq._base.dtypes import state_dtype
from jaxseq._engine.door import sequence, step
from jaxseq._engine.params import CellParams
from jaxseq._engine.widths import zeros_like_widths

State = TypeVar("State")
Update = Callable[[Any, State, Any, Any], State]


class Cell(NamedTuple):
    """An update with how its weights and its state begin.

    `LSTM`, `GRU` and `RNN` are the cells of `lstm`, `gru` and `rnn`.
    """

    update: Callable[..., Any]
    init: Callable[..., Any]  # (key, D, H, *, dtype) -> weights
    zeros: Callable[..., Any]  # (weights, batch) -> state


def cell_init(
    key: Array,
    D: int | None,
    Z: int | None,
    w_h: Any,
    *,
    extra: Any = None,
    dtype: Any = jnp.float32,
) -> CellParams:
    """Draws the weights of a cell.

    Args:
        key: a random key.
        D: input width; None for a cell without `w_x`.
        Z: width of the input map; None with it.
        w_h: the shapes of the matrices, `(I, O)` or `(N, I / N, O / N)` for N blocks
            along the diagonal of one, or a tree of such; None for a cell without.
        extra: the cell's other weights, an array or any tree of arrays, as they are.
        dtype: dtype of the weights.

    Returns:
        `CellParams`: `w_x` Glorot uniform as the one matrix `(D, Z)` that it is (that
        of `lstm_init` is so for each gate, and so larger), matrices orthogonal in
        blocks of as many columns as they have rows, `b` zero.

    Raises:
        ValueError: if a size is less than 1 or `dtype` is not a float.

    Example:
        >>> params = cell_init(jax.random.key(0), 3, 16, (8, 16))
        >>> params.w_x.shape, params.w_h.shape, params.b.shape
        ((3, 16), (8, 16), (16,))

    For the sources of the two distributions see `lstm_init`.
    """
    check_dtype(dtype, "dtype")
    check_key(key)
    check((D is None) == (Z is None), "Z", "None if D is, else a size", Z)
    for a in jax.tree.leaves(extra):
        ok = hasattr(a, "shape") or isinstance(a, (int, float))
        check(ok, "extra", "an array, or a tree of such", type(a).__name__)
    key_x, key_h = jax.random.split(key)
    wide = state_dtype(dtype)
    w_x = b = None
    if D is not None:
        check_sizes(D=D, Z=Z)
        w_x = jax.nn.initializers.glorot_uniform()(key_x, (D, Z), wide).astype(dtype)
        b = jnp.zeros(Z, dtype)
    is_shape = lambda a: type(a) is tuple and all(hasattr(n, "__index__") for n in a)
    shapes, tree = jax.tree.flatten(w_h, is_leaf=is_shape)
    keys = jax.random.split(key_h, max(1, len(shapes)))
    drawn = [
        _recurrent(k, shape, wide).astype(dtype)
        for k, shape in zip(keys, shapes, strict=False)
    ]
    return CellParams(w_x, tree.unflatten(drawn), b, apart(extra))


def _recurrent(key: Array, shape: Any, dtype: Any) -> Array:
    ok = type(shape) is tuple and len(shape) in (2, 3)
    check(ok, "w_h", "shapes (I, O) or (N, I / N, O / N)", repr(shape))
    check_sizes(**{f"w_h {shape}": n for n in shape})
    *N, I, O = shape
    orthogonal = jax.nn.initializers.orthogonal()

    def one(key: Array) -> Array:
        keys = jax.random.split(key, -(-O // I))
        gates = [
            orthogonal(k, (I, min(I, O - i * I)), dtype) for i, k in enumerate(keys)
        ]
        return jnp.hstack(gates)

    if not N:
        return one(key)
    return jnp.stack([one(k) for k in jax.random.split(key, N[0])])


def cell_zeros(
    widths: Any, batch: int | tuple[int, ...] = (), *, dtype: Any = jnp.float32
) -> Any:
    """Returns a state of zeros.

    Args:
        widths: the width of the state, or a NamedTuple of the widths of its parts.
        batch: axes in front, a tuple or one size.
        dtype: dtype of the weights; the state is float32 for the 16-bit dtypes.

    Returns:
        A state like `widths`, with arrays `(*batch, width)`.

    Raises:
        ValueError: if a width is less than 1 or `dtype` is not a float.

    Example:
        >>> cell_zeros(8, 2).shape
        (2, 8)
    """
    check_dtype(dtype, "dtype")
    return zeros_like_widths(widths, batch, dtype)


def cell_step(
    update: Update[State],
    params: CellParams,
    state: State,
    x: Any,
    *,
    resets: Array | None = None,
    start: State | None = None,
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
        >>> import jax, jaxseq
        >>> elman = lambda z_x, h, w_h, _: jax.numpy.tanh(z_x + w_h(h))
        >>> params = jaxseq.cell_init(jax.random.key(0), 3, 8, (8, 8))
        >>> h, x = jaxseq.cell_zeros(8, 5), jax.numpy.ones((5, 3))
        >>> h, y = jaxseq.cell_step(elman, params, h, x)
        >>> y.shape
        (5, 8)
    """
    return step(update, params, state, x, resets=resets, start=start)


def cell(
    update: Update[State],
    params: CellParams,
    x: Any,
    state: State | None = None,
    *,
    zeros: Any = None,
    start: State | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
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
            of its own, "pallas" a kernel for TPUs; None is the fastest one here, and
            "scan" for an update with an effect, with complex numbers, or without a
            derivative in reverse mode. Automatic checks of `checkify` see into an
            update with "scan" alone.

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
        >>> params = cell_init(jax.random.key(0), 3, 16, w_h)
        >>> h, y = cell(mgu, params, jnp.ones((5, 20, 3)), zeros=8)
        >>> y.shape
        (5, 20, 8)

        Where time comes first, as in a rollout `(T, B, D)`, `jax.vmap` over the batch:

        >>> run = lambda x: cell(mgu, params, x, zeros=8)
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


def cell_states(
    update: Update[State],
    params: CellParams,
    x: Any,
    state: State | None = None,
    *,
    zeros: Any = None,
    start: State | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
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

        >>> import jaxseq
        >>> params = CellParams(*jaxseq.lstm_init(jax.random.key(0), 3, 8))
        >>> widths, x = jaxseq.LSTMState(8, 8), jnp.ones((5, 20, 3))
        >>> states = cell_states(jaxseq.LSTM.update, params, x, zeros=widths)
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
