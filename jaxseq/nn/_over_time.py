"""Any NNX cell over time, by `jaxseq.scan`."""

import operator
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.by_time import (
    as_given,
    by_time,
    check_like,
    feature_axes,
    masked,
    one_step,
    shape_of_step,
)
from jaxseq._base.called import called, name_of_kind
from jaxseq._base.check import check, check_flag, check_remat
from jaxseq._base.mesh import as_it_comes_out


def over_time(
    cell: nnx.Module,
    x: Any,
    state: Any = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    time_major: bool = False,
    remat: int | None = None,
) -> tuple[Any, Any]:
    """Runs an NNX cell over time by `jaxseq.scan`.

    What the cell writes, such as counts of random keys or running statistics, goes from
    step to step, also over those that are not valid, and is written to it at the end.
    Under `jit`, a cell that writes has to be an argument of `nnx.jit`: a function of
    `jax.jit` cannot write to what it closes over.

    Args:
        cell: a module that is called as `cell(state, x_t) -> (state, y_t)`, such as
            `nnx.LSTMCell`. Its `initialize_carry(shape, rngs)` gives the state that a
            run begins with, for the shape of x_t; keys for it are always the same.
        x: inputs `(..., T, D)`, or a tree of such as the cell takes it. If the cell has
            `num_feature_axes`, that many axes in the place of D.
        state: initial state, a tree as the cell takes it; if None that of
            `initialize_carry`.
        lengths: valid steps of each sequence, integers `(...)`; all T if None. Past
            them the state stands still and the outputs are zero.
        mask: booleans `(..., T)`, which steps are valid; the run is as if the others
            were not there. With `lengths` too, a step is valid if both say so.
        resets: booleans `(..., T)`; where True a new segment starts, from the state of
            `initialize_carry`, with this step as its first (its last if `reverse`). At
            a step that is not valid it is ignored.
        reverse: whether to run from the last valid step to the first. Outputs stay at
            the position of their inputs.
        time_major: whether time is the first axis, of `x`, `mask`, `resets` and the
            outputs, as in a rollout `(T, B, D)`.
        remat: for long inputs, how many steps lie between two states that are kept
            for the backward pass; see `jaxseq.scan`.

    Returns:
        `(state, y)`: the final state, and the outputs of all steps, `(..., T, F)`.

    Raises:
        ValueError: if an argument is of a wrong kind or shape, or a call of the cell
            changes more of it than the values of its variables.

    Example:
        >>> cell = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> x, lengths = jnp.ones((5, 20, 3)), jnp.array([20, 7, 0, 1, 13])
        >>> h, y = jaxseq.nn.over_time(cell, x, lengths=lengths)
        >>> h.shape, y.shape
        ((5, 8), (5, 20, 8))
    """
    kind = type(cell).__name__
    expected = "an nnx.Module (for one of Linen there is jaxseq.linen.over_time)"
    check(isinstance(cell, nnx.Module), "cell", expected, name_of_kind(cell))
    reverse = check_flag(reverse, "reverse")
    time_major = check_flag(time_major, "time_major")
    remat = None if remat is None else check_remat(remat)
    how: Any = {"features": feature_axes(cell), "time_major": time_major}
    over = by_time(x, lengths, mask, resets, reverse, **how)
    graph, held = nnx.split(cell)
    begins = hasattr(cell, "initialize_carry")
    ok = begins or (state is not None and resets is None)
    check(ok, "cell", "a module with initialize_carry, to begin from", kind)
    if state is not None:
        first = partial(_start, graph, held, over.x)
        state = check_like(state, first if begins else None)
    given = held, state, over.x, over.masks
    options = {"batch": over.batch, "reverse": reverse, "remat": remat}
    state, y, written = _run(graph, *given, **options)
    if jax.tree.leaves(written):
        nnx.update(cell, written)
    return state, as_given(y, over.batch, time_major)


def _start(graph: Any, held: Any, x: Any) -> Any:
    cell = nnx.merge(graph, held, copy=True)
    return cell.initialize_carry(shape_of_step(x), nnx.Rngs(0))


# compiled, so that a second call outside `jit` compiles nothing
@partial(jax.jit, static_argnames=("graph", "batch", "reverse", "remat"))
def _run(
    graph: Any,
    held: Any,
    state: Any,
    x: Any,
    masks: Any,
    *,
    batch: Any,
    reverse: bool,
    remat: int | None,
) -> Any:
    """`(state, y, written)`, of the cell and of all steps; time in front."""
    start = None
    if state is None or masks.keep is not None:
        start = _start(graph, held, x)
    state = start if state is None else state

    def call(held: Any, state: Any, x: Any) -> Any:
        cell = nnx.merge(graph, held)
        state, y = called(cell, state, x)
        after, held = nnx.split(cell)
        expected = "a module whose call changes values of its variables alone"
        check(after == graph, "cell", expected, type(cell).__name__)
        return held, state, y

    paths = _written(call, held, state, one_step(x))
    is_written = lambda path, _: path in paths
    moving, fixed = nnx.split_state(held, is_written, ...)

    def step(moving: Any, state: Any, x: Any) -> Any:
        held, state, y = call(nnx.merge_state(moving, fixed), state, x)
        return nnx.split_state(held, is_written, ...)[0], state, y

    body, over = masked(step, start, batch), (x, masks)
    first = lambda carry, *now: body(carry, now)[0]
    carry = as_it_comes_out(first, (moving, state), *one_step(over))
    (moving, state), y = jaxseq.scan(body, carry, over, reverse=reverse, remat=remat)
    return state, y, moving


def _written(call: Any, held: Any, *args: Any) -> set[Any]:
    """The paths of variables that a call of the cell writes."""
    found = set()

    def values(held: Any) -> dict[Any, Any]:
        return {p: jax.tree.leaves(v) for p, v in nnx.to_flat_state(held)}

    def once(held: Any, *args: Any) -> None:
        before, after = values(held), values(call(held, *args)[0])
        same = lambda a, b: len(a) == len(b) and all(map(operator.is_, a, b))
        found.update(p for p in before if not same(before[p], after[p]))

    jax.eval_shape(once, held, *args)
    return found
