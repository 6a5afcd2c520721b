"""A cell over time as the plainest `lax.scan`: what the fast paths are held to."""

from typing import Any, NamedTuple

from jax import Array, lax

from jaxseq._base.masks import Masks, select
from jaxseq._engine.products import project, round_to, times
from jaxseq._engine.steps import evaluate
from jaxseq._engine.types import (
    Inputs,
    Spec,
    Weights,
    batch_of,
    out_dtype,
    to_batch_first,
    to_time_first,
)


class Out(NamedTuple):
    state: tuple[Array, ...]
    ys: tuple[Array, ...]  # (T, ..., F)
    lefts: tuple[Array, ...]  # (T, ..., I), what each matrix reads


def plain(spec: Spec, weights: Weights, inputs: Inputs, shifts: Any = None) -> Out:
    """Runs over time; `shifts` `(T, ..., O)` are added to the products."""
    x, state, start, masks = inputs

    def body(state: Any, now: Any) -> Any:
        valid = now[1].valid
        new, ys, lefts = _advanced(spec, weights, start, state, *now)
        ys = tuple(select(valid, a).astype(out_dtype(spec, a)) for a in ys)
        return select(valid, new, state), (ys, tuple(select(valid, lefts)))

    over = x, masks, shifts
    state, (ys, lefts) = lax.scan(body, state, over, reverse=spec.reverse)
    return Out(state, ys, lefts)


def _advanced(
    spec: Spec, weights: Weights, start: Any, state: Any, x: Any, masks: Masks,
    shifts: Any = None,
) -> Any:  # fmt: skip
    """State and outputs of a step as if it were valid, and what each matrix reads."""
    valid, keep = masks

    def product(k: int, a: Array) -> Array:
        precision = spec.step.precisions[k]
        return times(round_to(a, spec.dtype), weights.w_h[k], precision=precision)

    # padded steps run on zeros, so that no gradient of a weight in them is NaN
    z_x = project(spec.step, weights, select(valid, x))
    old = select(keep, state, start)
    rows = z_x, old, weights.extra, valid, shifts
    batch = len(batch_of(spec.step, state))
    new, ys, _, lefts = evaluate(spec.step, batch, product, *rows)
    return tuple(new), ys, lefts


def batch_first_plain(
    spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], Array]:
    """The state and `y` of `plain`, with x and y `(..., T, F)`."""
    x = tuple(map(to_time_first, inputs.x))
    end, (y,), _ = plain(spec, weights, inputs._replace(x=x))
    return end, to_batch_first(y)


def all_states(
    spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The final state, and that after each step, parts `(..., T, F)`, as x."""
    x, state, start, masks = inputs

    def body(state: Any, now: Any) -> Any:
        x, masks = now
        new, *_ = _advanced(spec, weights, start, state, x, masks)
        new = select(masks.valid, new, state)
        return new, new

    over = tuple(map(to_time_first, x)), masks
    end, states = lax.scan(body, state, over, reverse=spec.reverse)
    return end, tuple(map(to_batch_first, states))
