"""From a public function's arguments to the path that runs it."""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
from jax import Array
from jax.export import is_symbolic_dim
from jax.sharding import AxisType, PartitionSpec

from jaxseq._base.dtypes import widened
from jaxseq._base.masks import make_masks, select
from jaxseq._base.mesh import (
    has_axes,
    on_auto_axes,
    on_mesh_of_arguments,
    vary,
    varying,
)
from jaxseq._base.told import tell
from jaxseq._engine.mesh import NO_MESH, belongs_to_mesh, like_batch
from jaxseq._engine.pieces import checkpointed, over_pieces, padded
from jaxseq._engine.plain import all_states, batch_first_plain
from jaxseq._engine.products import project, round_to, times
from jaxseq._engine.rule import recurrence
from jaxseq._engine.step import Step
from jaxseq._engine.steps import evaluate, reads
from jaxseq._engine.types import Inputs, Spec, Weights, settings
from jaxseq._engine.update import Shapes, Update, step_of, traced


class Kept(NamedTuple):
    """What is kept of an update as long as it lives."""

    step: Step
    limit: str | None  # why only the plain scan runs it
    constants: int  # arrays that it closes over
    text: str  # of its jaxpr, if there are any
    over_time: Callable[..., Any]  # of the step, compiled once for each shape
    one_step: Callable[..., Any]


_kept: WeakKeyDictionary[Any, dict[Any, Kept]] = WeakKeyDictionary()


def prepared(
    update: Update, shapes: Shapes, axes: frozenset[Any], owner: Any = None
) -> tuple[Kept, Any]:
    """What there is of an update, and the arrays that it closes over.

    Its arguments vary over `axes` of `shard_map`. It is kept as long as `owner` lives;
    that is the update itself if None.
    """
    leaves, tree = jax.tree.flatten(shapes)
    kind = None if owner is None else type(update)
    if owner is None and isinstance(update, MethodType):  # made anew at each access
        owner, kind = update.__self__, update.__func__
    config: Any = jax.config
    key = (
        kind,
        tree,
        tuple((a.shape, str(a.dtype)) for a in leaves),
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
        jax.sharding.get_abstract_mesh(),
        axes,
    )
    try:
        mine = _kept.setdefault(update if owner is None else owner, {})
    except TypeError:  # it has no hash, or cannot be referred to weakly
        mine = {}
    kept = mine.get(key)
    if kept is not None and not kept.constants:
        return kept, []
    on_mesh, varied, jaxpr, constants = _traced(update, shapes, axes)
    text = str(jaxpr) if constants else ""
    if kept is None or kept.text != text:
        if varied is not None:
            varied = step_of(update, shapes, varied, constants)
        more = {"on_mesh": on_mesh, "varied": varied}
        step = step_of(update, shapes, jaxpr, constants, **more)
        limit = _limit(step)
        options = "reverse", "dtype", "implementation", "remat", "states"
        run = jax.jit(_named(over_time, step, limit), static_argnames=options)
        once = jax.jit(_named(one_step, step), static_argnames="dtype")
        kept = mine[key] = Kept(step, limit, len(constants), text, run, once)
    return kept, constants


def _traced(update: Update, shapes: Shapes, axes: frozenset[Any]) -> Any:
    """Whether it belongs to a mesh; the jaxpr on rows that vary, if any; that on none.

    With arrays of the caller's mesh in it, an update can be traced there only.
    """
    varied = None
    if has_axes(AxisType.Manual):
        varied, constants = traced(update, shapes, axes)
        if not varying(constants) <= axes:
            axes |= varying(constants)
            varied, constants = traced(update, shapes, axes)
        if any(map(belongs_to_mesh, constants)) or (axes and constants):
            return True, None, varied, constants
        varied = varied if axes else None
    with jax.sharding.use_abstract_mesh(NO_MESH):
        jaxpr, constants = traced(update, shapes)
    if any(map(belongs_to_mesh, constants)):
        return True, None, *traced(update, shapes)
    return False, varied, jaxpr, constants


EFFECT = "an update with an effect"


def _limit(step: Step) -> str | None:
    """Why the derivatives written out here are not for this update, if so."""
    if step.on_mesh:
        return "an update that holds arrays of the mesh"
    if step.is_complex:
        return "an update that reads complex numbers"
    if step.has_effects:
        return EFFECT
    try:
        reads(step)
    except Exception:  # whatever its rules raise; JAX does again for who needs them
        return "an update without a derivative in reverse mode"
    return None


def _named(f: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    run = partial(f, *first)
    run.__name__ = f.__name__  # pyright: ignore
    return run


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
