"""What the matrices read at each step, from what was saved: nothing is run again."""

import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import select
from jaxseq._engine.products import round_to
from jaxseq._engine.steps import lefts_of, reads
from jaxseq._engine.types import Inputs, Saved, Spec, Weights, widen


def complete(spec: Spec, saved: Saved, h: Array | None) -> Saved:
    """With h of the old states, if it is read and was not saved."""
    if h is not None and saved.state[0] is None and reads(spec.step).state[0]:
        return saved._replace(state=(h, *saved.state[1:]))
    return saved


def previous(spec: Spec, y: Array, inputs: Inputs) -> Array:
    """h before each step `(T, ..., H)`, from `y` and the first."""
    h, (valid, keep) = inputs.state[0], inputs.masks
    first, y = round_to(h, spec.dtype)[None], y.astype(h.dtype)
    if not spec.reverse:
        before = jnp.concatenate([first, y[:-1]])
    elif valid is None:
        before = jnp.concatenate([y[1:], first])
    else:
        # the step read first is the last valid one, wherever it is
        after = jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])
        before = jnp.concatenate([y[1:], first])
        before = select(after, before, jnp.broadcast_to(first, before.shape))
    start = None
    if inputs.start is not None:
        start = jnp.broadcast_to(inputs.start[0], before.shape)
    return select(keep, before, start)


def first_of(spec: Spec, y: Array, inputs: Inputs) -> Array | None:
    """h before each valid step, if y tells; before no step it may be anything."""
    if spec.holes:  # after one of them y does not tell what h was
        return None
    return select(inputs.masks.valid, previous(spec, y, inputs))


def is_recalled(spec: Spec, i: int) -> bool:
    """Whether what the i-th product reads is not h, or h is not known from y."""
    return spec.holes or not spec.step.left_is_first(i)


def only_recalled(spec: Spec, lefts: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a for i, a in enumerate(lefts) if is_recalled(spec, i))


def recalled(
    spec: Spec, weights: Weights, inputs: Inputs, y: Array, saved: Saved
) -> tuple[Array, ...]:
    """What matrices read `(T, ..., I)`, of those that read other than h."""
    if not any(is_recalled(spec, i) for i in range(len(spec.step.called))):
        return ()
    saved = complete(spec, saved, first_of(spec, y, inputs))
    x = select(inputs.masks.valid, inputs.x)
    z_x = tuple(
        widen(a) if w is None else b
        for a, w, b in zip(x, weights.w_x, saved.z_x, strict=True)
    )
    parts = z_x, saved.z, saved.state, weights.extra
    lefts = lefts_of(spec.step, inputs.state[0].ndim, *parts)
    return select(inputs.masks.valid, only_recalled(spec, lefts))
