"""The layers of a stack over several devices, which pass on chunks of time."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import ArrayLike

from jaxseq._base.axes import check_mesh, check_rows, is_manual, laid_out, on_all
from jaxseq._base.check import check, check_callable, check_flag, check_sizes
from jaxseq._base.masks import make_masks
from jaxseq._compose.layers import Layer, stack
from jaxseq._compose.ticks import Plan, Timed, run_ticks


def wavefront(
    layer: Layer,
    params: Any,
    x: ArrayLike,
    state: Any = None,
    *,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    chunk: int = 64,
    axis: str | None = None,
    batch_axis: str | None = None,
    mesh: Mesh | AbstractMesh | None = None,
) -> tuple[Any, Array]:
    """Runs layers of one kind one over the other, each on a device of its own.

    What comes out is that of `stack`. While the first device reads a chunk of time, the
    second reads what the first has made of the chunk before, and so on. With P devices
    and N chunks that takes N + P - 1 turns, each as long as a chunk is for the L / P
    layers of one device.

    Args:
        layer: a function `(params, x, state, *, lengths, mask, resets) -> (state, y)`,
            the same for all layers, such as `jaxseq.lstm` or `partial(jaxseq.cell,
            update, zeros=8)`; with `remat=chunk` given to it too, only the states
            between the chunks are kept for the backward pass.
        params: a list or tuple of the weights of the L layers from the input up, which
            have equal shapes; only the first may have another number of rows in `w_x`.
            Or one tree of them with an axis of L in front, which can lie on the devices
            of the layers: `jax.device_put(params, NamedSharding(mesh, P(axis)))`.
        x: inputs, `(..., T, D)`.
        state: the initial state of each layer; those that the layers begin at if None.
            As `params`: a list or tuple of L, or one tree with an axis of L in front.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`; where True a new segment starts.
        reverse: whether each layer runs from the last valid step to the first.
        chunk: how many steps a device reads before it passes on its outputs.
        axis: the axis of a mesh that the layers lie over, the same number on each
            device; None for one device, as in `stack`.
        batch_axis: an axis of the mesh that the batch, the first axis of `x`, lies
            over; None if each device of a layer has all of it.
        mesh: the mesh; that of the context (`jax.set_mesh`) if None.

    Returns:
        `(state, y)`: the final state of each layer, a tuple or with an axis in front
        as `params` are, and the outputs of the last one, `(..., T, H)`.

    Raises:
        ValueError: if a shape does not fit, the layers are not of equal shapes or no
            multiple of the devices, or the mesh has no such axis.

    For recurrent layers this is the order in which Appleyard, Kociský and Blunsom,
    "Optimizing Performance of Recurrent Neural Networks on GPUs", 2016,
    https://arxiv.org/abs/1604.01946, run them on one device. Huang et al., "GPipe:
    Efficient Training of Giant Neural Networks using Pipeline Parallelism", 2019,
    https://arxiv.org/abs/1811.06965, pass on parts of a batch instead of time.

    Example:
        >>> mesh = jax.make_mesh((jax.device_count(),), ("layer",))
        >>> keys = jax.random.split(jax.random.key(0), 2 * jax.device_count())
        >>> params = [jaxseq.lstm_init(key, 8, 8) for key in keys]
        >>> x = jnp.ones((5, 20, 8))
        >>> with jax.set_mesh(mesh):
        ...     state, y = jaxseq.wavefront(
        ...         jaxseq.lstm, params, x, chunk=5, axis="layer"
        ...     )
        >>> y.shape, len(state) == len(params)
        ((5, 20, 8), True)
    """
    check_callable(layer, "layer")
    check_sizes(chunk=chunk)
    reverse = check_flag(reverse, "reverse")
    listed = type(params) in (tuple, list)
    layers = list(params) if listed else _apart(params, "params")
    check(bool(layers), "params", "at least one layer", 0)
    states = state
    if state is not None and not listed:
        states = _apart(state, "state", len(layers))
    timed: dict[str, Any] = {"lengths": lengths, "mask": mask, "resets": resets}
    one = lambda: stack(
        [partial(layer, p) for p in layers], x, states, reverse=reverse, **timed
    )
    if axis is None:
        check(batch_axis is None, "batch_axis", "None without an axis", batch_axis)
        check_mesh(mesh)
        end, y = one()
        return end if listed else _together(end), y
    mesh = check_mesh(mesh, axis=axis, batch_axis=batch_axis)
    ok = not is_manual(axis) and axis != batch_axis
    check(ok, "axis", "an axis that is free", axis)
    n, parts = len(layers), mesh.shape[axis]
    check(n % parts == 0, "params", f"a multiple of {parts} layers, one a device", n)
    _, out = jax.eval_shape(one)  # which checks all that a stack does
    x = jnp.asarray(x)
    if batch_axis is not None:
        check_rows(x, "x", mesh.shape[batch_axis])
    layers, width = _of_one_width(layers, x.shape[-1], out.shape[-1])
    if listed:
        state = None if state is None else _together(state)
        params, state = on_all((_together(layers), state), mesh)
    T = x.shape[-2]
    given = _in_order(x, timed, reverse)
    pad = width - x.shape[-1]
    given = given._replace(x=jnp.pad(given.x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]))
    plan = Plan(layer, parts, chunk, axis, batch_axis, out.shape[-1], gathers=listed)
    batch = () if batch_axis is None else (batch_axis,)
    own, over, rows = (PartitionSpec(*a) for a in ((axis,), (axis, *batch), batch))
    each = lambda tree, spec: jax.tree.map(lambda _: spec, tree)
    args = params, state, given
    specs = each(params, own), each(state, over), each(given, rows)
    end, y = jax.shard_map(
        partial(run_ticks, plan),
        mesh=mesh,
        in_specs=specs,
        out_specs=(PartitionSpec(None, *batch) if listed else over, rows),
        axis_names={axis, *batch},
    )(*laid_out(args, specs, mesh))
    y = y[..., :T, :]
    if reverse:
        y = jnp.flip(y, -2)
    return tuple(_apart(end, "state")) if listed else end, y


def _together(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def _apart(tree: Any, name: str, n: int | None = None) -> list[Any]:
    """The trees of each layer, of one with an axis of layers in front."""
    sizes = {jnp.shape(a)[:1] for a in jax.tree.leaves(tree) if hasattr(a, "shape")}
    known = len(sizes) == 1 and all(map(_is_array, jax.tree.leaves(tree)))
    ok = known and () not in sizes and n in (None, *max(sizes)) and (0,) not in sizes
    axis = "layers" if n is None else f"{n} layers"
    expected = f"a list of one for each layer, or arrays with an axis of {axis} first"
    check(ok, name, expected, type(tree).__name__ if not known else sorted(sizes))
    ((size,),) = sizes
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(size)]


def _is_array(a: Any) -> bool:
    return hasattr(a, "shape") and hasattr(a, "dtype")


def _of_one_width(layers: list[Any], D: int, H: int) -> tuple[list[Any], int]:
    """Layers with as many rows in `w_x` as there are features of the widest."""
    width = max(D, H)

    def widened(p: Any) -> Any:
        is_none = lambda a: a is None
        parts = jax.tree.leaves(getattr(p, "w_x", None), is_leaf=is_none)
        ok = hasattr(p, "_replace") and not any(a is None for a in parts)
        check(ok, "x", f"{H} features, as the layers give, or weights w_x", D)
        rows = lambda a: jnp.pad(a, [(0, width - a.shape[0]), (0, 0)])
        return p._replace(w_x=jax.tree.map(rows, p.w_x))

    if D != H:
        layers = [widened(p) for p in layers]
    shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), p) for p in layers]
    for i, own in enumerate(shapes):
        expected = f"shapes and dtypes of the last layer, {shapes[-1]}"
        check(own == shapes[-1], f"params[{i}]", expected, own)
    return layers, width


def _in_order(x: Array, timed: dict[str, Any], reverse: bool) -> Timed:
    """The inputs and masks in the order in which they are read."""
    lengths, mask, resets = (
        None if a is None else jnp.asarray(a) for a in timed.values()
    )
    if lengths is not None:
        lengths = jnp.clip(lengths, 0, x.shape[-2]).astype(jnp.int32)
    if not reverse:
        return Timed(x, lengths, mask, resets)
    masks = make_masks(x.shape[-2], lengths, mask, resets, reverse)
    back = lambda a: None if a is None else jnp.moveaxis(jnp.flip(a, 0), 0, -1)
    keep = None if masks.keep is None else ~masks.keep
    return Timed(jnp.flip(x, -2), None, back(masks.valid), back(keep))
