"""A stack whose layers lie over several devices, pipelined over chunks of time."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import ArrayLike

from jaxseq._base.axes import (
    check_batch_axis,
    check_known,
    check_mesh,
    check_rows,
    is_manual,
    laid_out,
    on_all,
)
from jaxseq._base.check import (
    check,
    check_callable,
    check_flag,
    check_lengths,
    check_sizes,
)
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
    """Runs a stack of equal layers over several devices, in chunks of time.

    The results are those of `stack`. With P devices, each holds L / P of the L layers.
    While the first device runs its layers on one chunk of time, the second one runs its
    own on what the first has made of the chunk before, and so on. N chunks take
    N + P - 1 ticks, and a tick takes as long as one device's layers for one chunk.

    Args:
        layer: a function `(params, x, state, *, lengths, mask, resets) -> (state, y)`,
            the same for all layers, which reads time from the start to the end; such as
            `jaxseq.lstm` or `partial(jaxseq.cell, update, zeros=8)`. Random numbers
            that it draws are the same in each chunk and each part of the batch: not
            what zoneout needs, which draws for each step. With its own `remat=K`, where
            K is less than `chunk`, only every K-th state is kept for the backward pass.
        params: a list or tuple of the weights of the L layers from the input up. They
            have equal shapes, but where the width D of `x` is not H, the first `w_x`
            has D rows. Or one tree of weights with an axis of size L in front, which
            can be sharded so that each device holds its own layers only:
            `jax.device_put(params, NamedSharding(mesh, P(axis)))`.
        x: inputs, `(..., T, D)`.
        state: the initial state of each layer, in a list or tuple, or in one tree, as
            `params`; if None, each layer begins as it does by itself.
        lengths: valid steps of each sequence, integers `(...)`; all T if None.
        mask: booleans `(..., T)`, which steps are valid; all if None.
        resets: booleans `(..., T)`; where True a new segment starts.
        reverse: whether each layer runs from the last valid step to the first.
        chunk: how many steps a device reads before it passes on its outputs. The last
            chunk is padded to this size.
        axis: the mesh axis that the layers lie over, the same number of them on each
            device; if None, all run on one device, as in `stack`.
        batch_axis: the mesh axis that the batch, the first axis of `x`, lies over; if
            None, each device has the whole batch.
        mesh: the mesh; if None, that of the context (`jax.set_mesh`).

    Returns:
        `(state, y)`: the final state of each layer, in a tuple or in one tree, as
        `params`, and the outputs of the last layer, `(..., T, H)`.

    Raises:
        ValueError: if a shape does not fit, the layers have different shapes, their
            number is not a multiple of the number of devices, the mesh has no such
            axis, or a size is symbolic with `axis`.

    For recurrent layers this order of computation is from Appleyard, Kociský and
    Blunsom, "Optimizing Performance of Recurrent Neural Networks on GPUs", 2016,
    https://arxiv.org/abs/1604.01946, where it runs on one device. The pipeline of Huang
    et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline
    Parallelism", 2019, https://arxiv.org/abs/1811.06965, has parts of a batch where
    this one has chunks of time.

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
    apart = partial(_apart, shapes_only=axis is not None)
    layers = list(params) if listed else apart(params, "params")
    check(bool(layers), "params", "at least one layer", 0)
    states = state
    if state is not None and not listed:
        states = apart(state, "state", n=len(layers))
    timed: dict[str, Any] = {"lengths": lengths, "mask": mask, "resets": resets}

    def one(layers: Any, states: Any) -> Any:
        run = [partial(layer, p) for p in layers]
        return stack(run, x, states, reverse=reverse, **timed)

    mesh = check_mesh(mesh, axis=axis, batch_axis=batch_axis)
    check_batch_axis(batch_axis, axis)
    if axis is None:
        end, y = one(layers, states)
        return end if listed else _together(end), y
    check(not is_manual(axis), "axis", "an axis with no shard_map over it", axis)
    n, parts = len(layers), mesh.shape[axis]
    expected = f"a multiple of {parts} layers, the number of devices"
    check(n % parts == 0, "params", expected, n)
    # which checks the arguments as stack does
    known = partial(one, layers, states)
    _, out = jax.eval_shape(known) if listed else jax.eval_shape(one, layers, states)
    got = type(out).__name__
    check(hasattr(out, "shape"), "layer", "one array as outputs", got)
    x = jnp.asarray(x)
    check_known(x, "x")
    spec = jax.typeof(x).sharding.spec  # of an explicit mesh
    ok = set(jax.tree.leaves(tuple(spec))) <= {batch_axis}
    check(ok, "x", f"an array over no mesh axis but batch_axis {batch_axis}", spec)
    if batch_axis is not None:
        check_rows(x, "x", mesh.shape[batch_axis])
    D, H = x.shape[-1], out.shape[-1]
    if listed:
        layers = _of_one_shape([_widened(p, D, H, rows=0) for p in layers])
        state = None if state is None else _together(state)
        params, state = on_all((_together(layers), state), mesh)
    else:
        params = _widened(params, D, H, rows=1)
    T = x.shape[-2]
    chunk = max(min(chunk, T), 1)
    given = _in_order(x, timed, reverse)
    wide = [(0, 0)] * (x.ndim - 1) + [(0, max(D, H) - D)]
    given = given._replace(x=jnp.pad(given.x, wide))
    plan = Plan(layer, parts, chunk, axis, batch_axis, H, gathers=listed)
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
    return tuple(_apart(end, "state", n=n)) if listed else end, y


def _together(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def _apart(
    tree: Any, name: str, n: int | None = None, shapes_only: bool = False
) -> list[Any]:
    """Takes apart a tree of arrays with an axis of layers in front, n if given."""
    leaves = jax.tree.leaves(tree)
    known = bool(leaves) and all(hasattr(a, "shape") for a in leaves)
    sizes = {a.shape[0] if a.shape else 0 for a in leaves} if known else set()
    ok = len(sizes) == 1 and (n in sizes or (n is None and 0 not in sizes))
    axis = "layers" if n is None else f"{n} layers"
    expected = (
        f"a list of one for each layer, or arrays with an axis of {axis} in front"
    )
    got = f"first axes of {sorted(sizes)}" if known else type(tree).__name__
    check(ok, name, expected, got)
    shape = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    if shapes_only:
        return [jax.tree.map(shape, tree) for _ in range(*sizes)]
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(*sizes)]


def _widened(params: Any, D: int, H: int, rows: int) -> Any:
    """Weights for inputs as wide as the wider of D and H: zero rows below `w_x`.

    Its rows are that axis of it.
    """
    if D == H:
        return params
    parts = jax.tree.leaves(getattr(params, "w_x", None), is_leaf=lambda a: a is None)
    ok = hasattr(params, "_replace") and not any(a is None for a in parts)
    expected = f"{H} features, as in the outputs, where params have no w_x to pad"
    check(ok, "x", expected, D)

    def wide(a: Any) -> Array:
        more = [max(D, H) - n if i == rows else 0 for i, n in enumerate(a.shape)]
        return jnp.pad(a, [(0, n) for n in more])

    return params._replace(w_x=jax.tree.map(wide, params.w_x))


def _of_one_shape(layers: list[Any]) -> list[Any]:
    shapes = [
        jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), p) for p in layers
    ]
    for i, own in enumerate(shapes):
        expected = f"the shapes and dtypes of the last layer, {shapes[-1]}"
        check(own == shapes[-1], f"params[{i}]", expected, own)
    return layers


def _in_order(x: Array, timed: dict[str, Any], reverse: bool) -> Timed:
    """The inputs and masks with the steps in the order in which they are read."""
    lengths = timed["lengths"]
    if lengths is not None:
        lengths = check_lengths(lengths, x.shape[:-2], x.shape[-2])
    mask, resets = (
        None if timed[name] is None else jnp.asarray(timed[name])
        for name in ("mask", "resets")
    )
    if not reverse:
        return Timed(x, lengths, mask, resets)
    masks = make_masks(x.shape[-2], lengths, mask, resets, reverse)
    back = lambda a: None if a is None else jnp.moveaxis(jnp.flip(a, 0), 0, -1)
    keep = None if masks.keep is None else ~masks.keep
    return Timed(jnp.flip(x, -2), None, back(masks.valid), back(keep))
