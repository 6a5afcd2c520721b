"""A cell over time, and a single step of it, by the path that runs it."""

from typing import Any

from jax import Array
from jax.export import is_symbolic_dim
from jax.sharding import PartitionSpec

from jaxseq._base.dtypes import widened
from jaxseq._base.masks import make_masks, select
from jaxseq._base.mesh import on_auto_axes, on_mesh_of_arguments, vary, varying
from jaxseq._base.told import tell
from jaxseq._engine.mesh import like_batch
from jaxseq._engine.pieces import checkpointed, over_pieces, padded
from jaxseq._engine.plain import all_states, batch_first_plain
from jaxseq._engine.products import project, round_to, times
from jaxseq._engine.rule import recurrence
from jaxseq._engine.step import Step
from jaxseq._engine.steps import evaluate
from jaxseq._engine.types import Inputs, Spec, Weights, settings

EFFECT = "an update with an effect"


def _wide(step: Step, weights: Weights) -> Weights:
    """Weights in the dtype of the sums; what the update holds stays in its own."""
    held = weights.extra[len(weights.extra) - step.held :]
    wide = widened(weights)
    return wide._replace(extra=(*wide.extra[: len(wide.extra) - step.held], *held))


def _varied(step: Step, weights: Weights, *args: Any) -> Any:
    """Arguments that all vary over the same axes, but what the update holds."""
    axes = varying((weights, args))
    n = len(weights.extra) - (step.held if step.on_mesh else 0)
    extra, held = weights.extra[:n], weights.extra[n:]
    weights, args = vary((weights._replace(extra=extra), args), axes)
    return weights._replace(extra=(*weights.extra, *held)), *args


def _passed_wide(weights: Weights, x: tuple[Array, ...]) -> tuple[Array, ...]:
    """Inputs, those that are their own maps in the dtype of the sums."""
    parts = zip(x, weights.w_x, strict=True)
    return tuple(widened(a) if w is None else a for a, w in parts)


def _cell(
    spec: Spec, weights: Weights, inputs: Inputs
) -> tuple[tuple[Array, ...], Array]:
    """The state and `y`, which is the one output of a cell."""
    end, (y,) = recurrence(spec, weights, inputs)
    return end, y


@on_mesh_of_arguments
def one_step(
    step: Step,
    weights: Weights,
    x: tuple[Array, ...],
    state: tuple[Array, ...],
    start: tuple[Array, ...] | None,
    resets: Array | None,
    *,
    dtype: Any,
) -> tuple[tuple[Array, ...], Array]:
    """Does one step on `x` `(..., D)` by plain products."""

    def run(weights: Weights, x: Any, state: Any, start: Any, resets: Any) -> Any:
        weights = _wide(step, weights)

        def product(k: int, a: Array) -> Array:
            return times(round_to(a, dtype), weights.w_h[k])

        old = state if resets is None else select(~resets, state, start)
        z_x = project(step, weights, _passed_wide(weights, x))
        batch = state[0].ndim - 1
        new, *_ = evaluate(step, batch, product, z_x, old, weights.extra)
        return tuple(new), new[0].astype(dtype)

    args = weights, x, state, start, resets
    if not step.on_mesh:
        run = on_auto_axes(run, x[0], lambda lead: ((lead,) * len(state), lead))
    return run(*_varied(step, *args))


@on_mesh_of_arguments
def over_time(
    step: Step,
    limit: str | None,
    weights: Weights,
    x: tuple[Array, ...],
    state: tuple[Array, ...],
    start: tuple[Array, ...] | None,
    lengths: Array | None,
    mask: Array | None,
    resets: Array | None,
    *,
    reverse: bool,
    dtype: Any,
    implementation: str | None,
    remat: int | None,
    states: bool = False,
) -> tuple[tuple[Array, ...], Any]:
    """Runs over `x` `(..., T, D)`: the state and `y`, or in its place all `states`."""

    def run(
        weights: Weights, x: Any, state: Any, start: Any, lengths: Any, mask: Any,
        resets: Any,
    ) -> Any:  # fmt: skip
        T = x[0].shape[-2]
        masks = make_masks(T, lengths, mask, resets, reverse)
        start = None if resets is None else start  # then it is never read
        weights = _wide(step, weights)
        inputs = Inputs(_passed_wide(weights, x), state, start, masks)
        holes, starts = mask is not None, start is not None
        spec = Spec(
            step, reverse, dtype, holes, starts, implementation, remat,
            settings=settings(), batch_first=True,
        )  # fmt: skip
        if states:
            return all_states(spec, weights, inputs)
        run = _cell
        if limit is not None:
            tell(step.name, "by lax.scan", limit)
        if T == 0 or implementation == "scan" or limit is not None:
            run = batch_first_plain
        if remat is None or not (is_symbolic_dim(T) or remat < T):
            return run(spec, weights, inputs)
        if is_symbolic_dim(T):
            inputs = padded(inputs, T, -(-T // remat) * remat - T)
        pieces = over_pieces if limit in (None, EFFECT) else checkpointed
        end, y = pieces(run, spec, weights, inputs)
        return end, y[..., :T, :]

    def layout(lead: Any) -> Any:
        *batch, _ = lead
        over = (lead,) * len(state) if states else lead
        return (PartitionSpec(*batch),) * len(state), over

    if step.on_mesh:
        state, start = like_batch((state, start), x[0])
    else:
        run = on_auto_axes(run, x[0], layout)
    args = weights, x, state, start, lengths, mask, resets
    return run(*_varied(step, *args))
