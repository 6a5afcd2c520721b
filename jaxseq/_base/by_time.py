"""Sequences with time in front, and a cell's step with masks around it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxseq._base.check import as_array, check, check_lengths, check_mask
from jaxseq._base.masks import Masks, make_masks, select

Step = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class Sequence(NamedTuple):
    """Inputs of all steps, time in front."""

    x: Any  # a tree of arrays (T, ..., F), zero where a step is not valid
    masks: Masks
    batch: tuple[int, ...]


def by_time(
    x: Any,
    lengths: Any,
    mask: Any,
    resets: Any,
    reverse: bool,
    *,
    features: int,
    time_major: bool,
) -> Sequence:
    """Checks `x`, `(..., T, F)` with `features` axes behind T, and the masks."""
    is_leaf = lambda a: a is None or isinstance(a, list)
    x = jax.tree.map(lambda a: as_array(a, "x"), x, is_leaf=is_leaf)
    parts = jax.tree.leaves(x)
    check(bool(parts), "x", "an array", type(x).__name__)
    axes = ", ".join("D" if features == 1 else f"F{i}" for i in range(features))
    shape = f"(T, ..., {axes})" if time_major else f"(..., T, {axes})"
    for a in parts:
        check(a.ndim > features, "x", f"shape {shape}", a.shape)
    axis = 0 if time_major else parts[0].ndim - features - 1
    lead = parts[0].shape[: parts[0].ndim - features]
    for a in parts:
        check(a.shape[: len(lead)] == lead, "x", f"parts that begin {lead}", a.shape)
    batch, T = (*lead[:axis], *lead[axis + 1 :]), lead[axis]
    if lengths is not None:
        lengths = check_lengths(lengths, batch, T)
    time_last = lambda a: jnp.moveaxis(a, axis, -1)
    if mask is not None:
        mask = time_last(check_mask(mask, lead, "mask"))
    if resets is not None:
        resets = time_last(check_mask(resets, lead, "resets"))
    masks = make_masks(T, lengths, mask, resets, reverse)
    x = jax.tree.map(lambda a: jnp.moveaxis(a, axis, 0), x)
    return Sequence(select(masks.valid, x), masks, batch)


def as_given(y: Any, batch: tuple[int, ...], time_major: bool) -> Any:
    """Outputs `(T, ..., F)` with time where that of the inputs is."""
    axis = 0 if time_major else len(batch)
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, axis), y)


def masked(step: Step, start: Any, batch: tuple[int, ...]) -> Callable[..., Any]:
    """A body of a scan over `(x_t, masks)`, of a `(held, state, x_t)` step.

    A step that is not valid leaves the state as it is, and its output is zero. One
    that is not to be kept begins from `start`.
    """

    def body(carry: Any, now: tuple[Any, Masks]) -> Any:
        (held, state), (x, masks) = carry, now
        if masks.keep is not None or masks.valid is not None:
            check_rows(state, batch, "state", "parts")
        old = select(masks.keep, state, start)
        held, new, y = step(held, old, x)
        if masks.valid is not None:
            check_rows(y, batch, "cell", "outputs")
        return (held, select(masks.valid, new, old)), select(masks.valid, y)

    return body


def check_rows(tree: Any, batch: tuple[int, ...], name: str, what: str) -> None:
    """Checks that there is one of each for each row that a mask speaks of."""
    for a in jax.tree.leaves(tree):
        expected = f"{what} with axes {batch} in front, as there are masks"
        check(jnp.shape(a)[: len(batch)] == batch, name, expected, jnp.shape(a))


def check_like(state: Any, first: Callable[[], Any] | None) -> Any:
    """Checks a state against the shapes of what `first` gives, if it gives any."""
    try:
        like = None if first is None else jax.eval_shape(first)
    except Exception:  # it takes what it likes, and a run from a state needs none of it
        like = None
    state = jax.tree.map(
        lambda a: as_array(a, "state"), state, is_leaf=lambda a: a is None
    )
    if like is None:
        return state
    trees = jax.tree.structure(state), jax.tree.structure(like)
    check(trees[0] == trees[1], "state", trees[1], trees[0])
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True)
    for a, b in pairs:
        check(a.shape == b.shape, "state", f"shape {b.shape}", a.shape)
    return state


def shape_of_step(x: Any) -> Any:
    """Of inputs `(T, ..., F)` the shape `(..., F)`, or a tree of such."""
    return jax.tree.map(lambda a: a.shape[1:], x)


def one_step(over: Any) -> Any:
    """Of what is `(T, ...)` that of the first step, or shapes of it without steps."""
    shape = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    return jax.tree.map(lambda a: shape(a) if a.shape[0] == 0 else a[0], over)


def feature_axes(cell: Any) -> int:
    """How many axes of features a cell's input has; 1 if it does not say."""
    try:
        return cell.num_feature_axes
    except (AttributeError, NotImplementedError):
        return 1
