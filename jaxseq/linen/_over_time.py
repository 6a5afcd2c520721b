"""Any Linen cell over time, by `jaxseq.linen.scan`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.scope import DenyList, subtract_filters, union_filters
from flax.linen.transforms import lift_transform
from jax.typing import ArrayLike

from jaxseq._base.by_time import (
    as_given,
    by_time,
    check_like,
    feature_axes,
    masked,
    shape_of_step,
)
from jaxseq._base.called import called, name_of_kind
from jaxseq._base.check import check, check_flag, check_remat
from jaxseq.linen._lifted import scan_of_made as lifted_scan_of_made


def over_time(
    cell: nn.Module,
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
    """Runs a Linen cell over time by `jaxseq.linen.scan`, inside of a module.

    Parameters have the names and values that `nn.RNN` gives them. Each step has its own
    random numbers. Other variables that may be changed, such as running statistics, go
    from step to step, also over those that are not valid; but what is sown is left out.

    Args:
        cell: a cell, such as `nn.LSTMCell`, of a module that is being run, or bound to
            variables by `cell.bind`. It is called as `cell(state, x_t) -> (state,
            y_t)`; its `initialize_carry(key, shape)` gives the state that a run begins
            with, for the shape of x_t; the key is always the same.
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
        ValueError: if an argument is of a wrong kind or shape.

    Example:
        >>> class Tagger(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, lengths):
        ...         _, y = jaxseq.linen.over_time(nn.GRUCell(8), x, lengths=lengths)
        ...         return nn.Dense(4)(y)
        >>> x, lengths = jnp.ones((5, 20, 3)), jnp.array([20, 7, 0, 1, 13])
        >>> y, variables = Tagger().init_with_output(jax.random.key(0), x, lengths)
        >>> y.shape
        (5, 20, 4)
    """
    kind = type(cell).__name__
    expected = "a Linen module (for one of NNX there is jaxseq.nn.over_time)"
    check(isinstance(cell, nn.Module), "cell", expected, name_of_kind(cell))
    expected = "a cell of a module that is being run, or a bound one"
    scope: Any = cell.scope
    check(scope is not None, "cell", expected, f"{kind}, unbound")
    reverse = check_flag(reverse, "reverse")
    time_major = check_flag(time_major, "time_major")
    remat = None if remat is None else check_remat(remat)
    how: Any = {"features": feature_axes(cell), "time_major": time_major}
    over = by_time(x, lengths, mask, resets, reverse, **how)
    begins = hasattr(cell, "initialize_carry")
    ok = begins or (state is not None and resets is None)
    check(ok, "cell", "a module with initialize_carry, to begin from", kind)

    def begin() -> Any:
        return cell.initialize_carry(jax.random.key(0), shape_of_step(over.x))

    if state is not None:
        state = check_like(state, begin if begins else None)
    start = begin() if state is None or resets is not None else None
    state = start if state is None else state
    if scope.is_mutable_collection("params") and not cell.variables:
        zeros = lambda a: jnp.zeros(a.shape[1:], a.dtype)
        called(cell, state, jax.tree.map(zeros, over.x))  # which makes its variables
    moving = subtract_filters(scope.mutable, {"params", "intermediates"})

    def body(cell: Any, carry: Any, now: Any) -> Any:
        step = lambda held, state, x: (held, *called(cell, state, x))
        return masked(step, start, over.batch)(carry, now)

    run = lift_transform(
        lifted_scan_of_made,
        body,
        written=not cell.is_initializing(),
        variable_broadcast=DenyList(union_filters(moving, "intermediates")),
        variable_carry=moving,
        split_rngs={"params": False, True: True},
        reverse=reverse,
        remat=remat,
    )
    (_, state), y = run(cell, ((), state), (over.x, over.masks))
    return state, as_given(y, over.batch, time_major)
