"""What is kept of an update: its step, and what is compiled for it."""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
from jax.sharding import AxisType

from jaxseq._base.mesh import has_axes, varying
from jaxseq._engine.mesh import NO_MESH, belongs_to_mesh
from jaxseq._engine.over_time import EFFECT, one_step, over_time
from jaxseq._engine.step import Step
from jaxseq._engine.steps import reads
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
