"""The shapes of what a run in time takes and returns, with and without members.

Members are what `vmap` makes of a run where its axis cannot be one more of the batch.
"""

from dataclasses import dataclass
from typing import Any

import jax

from jaxseq._base.dtypes import is_float
from jaxseq._engine.recall import only_recalled
from jaxseq._engine.steps import reads
from jaxseq._engine.types import Gradients, Inputs, Saved, Spec, is_saved, out_dtype


@dataclass(frozen=True)
class Leaf:
    """An output: its shape is time if `over_time`, the batch, and `features`.

    Where time follows the batch it is one of the features.
    """

    over_time: bool
    batch: bool
    features: tuple[int, ...]
    dtype: Any


def outputs(kind: str, spec: Spec, args: Any) -> Any:
    """What a run returns, as `Leaf`s."""
    step = spec.step
    weights = args[0]
    row = lambda a: Leaf(False, True, a.shape, a.dtype)
    over_time = lambda a: Leaf(True, True, a.shape, a.dtype)
    z: Any = tuple(map(over_time, step.z))
    some: Any = lambda f, flags, like: tuple(
        f(a) if yes else None for yes, a in zip(flags, like, strict=True)
    )
    state: Any = tuple(map(row, step.state))
    if kind == "forward":
        ys = [Leaf(True, True, a.shape, out_dtype(spec, a)) for a in step.ys]
        if spec.batch_first:
            T = args[1].x[0].shape[-2]
            ys = [Leaf(False, True, (T, *y.features), y.dtype) for y in ys]
        ys = tuple(ys)
        if not spec.save:
            return state, ys, None, None
        keep_x, keep_state = is_saved(spec, weights)
        saved = Saved(
            some(over_time, keep_x, step.z_x),
            z,
            some(over_time, keep_state, step.state),
        )
        lefts: Any = tuple(map(over_time, step.lefts))
        return state, ys, saved, only_recalled(spec, lefts)
    own = [
        is_float(a) and part is None
        for a, part in zip(step.extra, reads(step).parts, strict=True)
    ]
    extra = lambda a: Leaf(False, len(a.shape) < 2, a.shape, a.dtype)
    starts = spec.starts and args[3].keep is not None
    state = some(row, map(is_float, step.state), step.state)
    return Gradients(
        some(over_time, map(is_float, step.z_x), step.z_x),
        z,
        some(extra, own, step.extra),
        state,
        state if starts else None,
    )


def features(kind: str, spec: Spec, args: Any) -> Any:
    """For each argument how many axes follow its batch; -1 if it has none."""
    step = spec.step
    none = lambda tree: jax.tree.map(lambda _: -1, tree)
    masks = lambda tree: jax.tree.map(lambda _: 0, tree)

    def own(tree: Any, parts: Any, more: int = 0) -> Any:
        pairs = zip(tree, parts, strict=True)
        number = lambda a, n: jax.tree.map(lambda _: n, a)  # both of a `Before`
        return tuple(number(a, len(b.shape) + more) for a, b in pairs)

    if kind == "forward":
        weights, (x, state, start, m) = args
        start = None if start is None else own(start, step.state)
        x = own(x, step.z_x, int(spec.batch_first))
        return none(weights), Inputs(x, own(state, step.state), start, masks(m))
    weights, x, saved, m, d_end, d_ys = args
    parts = zip(saved, (step.z_x, step.z, step.state), strict=True)
    kept = Saved(*(own(*pair) for pair in parts))
    d_end, d_ys = own(d_end, step.state), own(d_ys, step.ys)
    return none(weights), own(x, step.z_x), kept, masks(m), d_end, d_ys


def of_one_member(avals: Any, members: Any) -> tuple[list[tuple[int, ...]], list[int]]:
    """Shapes of one member's arrays, and sizes of the axes of members, outermost first.

    `members` has the axes of each `vmap`, innermost first; an axis is None where all
    members share an array.
    """
    shapes, sizes = [tuple(a.shape) for a in avals], []
    for axes in reversed(members):
        pairs = list(zip(shapes, axes, strict=True))
        sizes.append(next(s[i] for s, i in pairs if i is not None))
        shapes = [s if i is None else s[:i] + s[i + 1 :] for s, i in pairs]
    return shapes, sizes
