"""What the matrices read at each step, from what was saved: nothing is run again."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import select
from jaxseq._engine.products import round_to
from jaxseq._engine.steps import lefts_of, reads
from jaxseq._engine.types import Before, Inputs, Saved, Spec, Weights, batch_of

# of each part of the state what it was before each step, where an output tells
Told = tuple[Array | Before | None, ...]


def complete(spec: Spec, saved: Saved, told: Told) -> Saved:
    """With the parts of the old states that are read and were not saved."""
    parts = zip(saved.state, told, reads(spec.step).state, strict=True)
    state = tuple(b if a is None and read else a for a, b, read in parts)
    return saved._replace(state=state)


def whole(spec: Spec, saved: Saved) -> Saved:
    """With arrays in place of each `Before`."""
    state = (shifted(spec, a) if isinstance(a, Before) else a for a in saved.state)
    return saved._replace(state=tuple(state))


def previous(spec: Spec, y: Array, inputs: Inputs, p: int = 0) -> Array:
    """Part `p` of the state before each step `(T, ..., F)`, from `y` and the first."""
    h, (valid, keep) = inputs.state[p], inputs.masks
    first, y = round_to(h, spec.dtype), y.astype(h.dtype)
    before = shifted(spec, Before(y, first))
    if spec.reverse and valid is not None:
        # the step read first is the last valid one, wherever it is
        after = jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])
        before = select(after, before, jnp.broadcast_to(first, before.shape))
    start = None
    if inputs.start is not None:
        start = jnp.broadcast_to(inputs.start[p], before.shape)
    return select(keep, before, start)


def shifted(spec: Spec, a: Before) -> Array:
    first = a.first[None]
    parts = (a.y[1:], first) if spec.reverse else (first, a.y[:-1])
    return jnp.concatenate(parts)


def told_by(spec: Spec, ys: tuple[Array, ...], inputs: Inputs) -> Told:
    """The parts of the state before each valid step that the outputs tell.

    Before a step that is not valid they may be anything. Where no mask says which steps
    are valid or reset the state, they are the output itself, one step earlier.
    """
    masks = inputs.masks
    told: list[Array | Before | None] = [None] * len(spec.step.state)
    if spec.holes:  # after one of them an output does not tell what the state was
        return tuple(told)
    for p, y in zip(spec.step.tells, ys, strict=True):
        if p is None or told[p] is not None:
            continue
        h = inputs.state[p]
        alike = spec.dtype in (None, y.dtype)
        if alike and masks.valid is None and masks.keep is None:
            told[p] = Before(y, h.astype(y.dtype))
        else:
            told[p] = select(masks.valid, previous(spec, y, inputs, p))
    return tuple(told)


def left_by(spec: Spec, i: int, told: Told) -> Any:
    """What the i-th product reads, which the outputs tell."""
    p = spec.step.left_part(i)
    assert p is not None
    return told[p]


def is_recalled(spec: Spec, i: int) -> bool:
    """Whether what the i-th product reads is no part of the state that y tells."""
    return spec.holes or spec.step.left_part(i) is None


def only_recalled(spec: Spec, lefts: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a for i, a in enumerate(lefts) if is_recalled(spec, i))


def recalled(
    spec: Spec, weights: Weights, inputs: Inputs, ys: tuple[Array, ...], saved: Saved
) -> tuple[Array, ...]:
    """What matrices read `(T, ..., I)`, of those that read other than such a part."""
    if not any(is_recalled(spec, i) for i in range(len(spec.step.called))):
        return ()
    saved = whole(spec, complete(spec, saved, told_by(spec, ys, inputs)))
    x = select(inputs.masks.valid, inputs.x)
    z_x = tuple(
        a if w is None else b for a, w, b in zip(x, weights.w_x, saved.z_x, strict=True)
    )
    axes = 1 + len(batch_of(spec.step, inputs.state))
    parts = z_x, saved.z, saved.state, weights.extra
    lefts = lefts_of(spec.step, axes, *parts)
    return select(inputs.masks.valid, only_recalled(spec, lefts))
