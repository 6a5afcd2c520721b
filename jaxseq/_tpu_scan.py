"""`lax.scan` over time as one Pallas kernel for TPUs.

The weights and the states stay in VMEM, the memory beside the matrix units, while
blocks of time stream through it.

Below `over_time` arrays are (M, B, ...): M members with weights of their own, each
with a batch B. `vmap` adds to B, or to M if it maps the weights.
"""

from collections.abc import Callable
from functools import partial
from math import ceil, prod
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import (
    AbstractMesh,
    AxisType,
    ManualAxisType,
    NamedSharding,
    PartitionSpec,
)

from jaxseq._check import check

LANES = 128
ROWS = 16  # in a tile of 16-bit values, and in two of float32
MOST_ROWS = 128  # the matrix unit is busy with these
MOST_STEPS = 32
BLOCKS = 16 << 20  # bytes; more of them only come in later
SMALLEST = 16 << 20  # bytes of VMEM, on v4 and before
INTERPRET: Any = False  # whether to run the kernel without a TPU, for tests

Step = Callable[[Any, Any, Any], tuple[Any, Any]]  # weights, carry, x: carry, y


class Chip(NamedTuple):
    """What the tiles depend on."""

    vmem: int  # bytes of a core
    cores: int  # that share a kernel


class Bytes(NamedTuple):
    """What a kernel holds in VMEM."""

    fixed: int
    row: int  # for every row of a batch tile
    step: int  # for every row and step of a block

    def total(self, rows: int, steps: int) -> int:
        return self.fixed + rows * (self.row + steps * self.step)


def chip() -> Chip:
    """The TPU of the mesh in context, or by default; the smallest if there is none."""
    try:
        info = pltpu.get_tpu_info()
    except ValueError:  # that is not a TPU
        return Chip(SMALLEST, 1)
    return Chip(info.vmem_capacity_bytes, info.num_cores)


def tiles(B: int, T: int, size: Bytes, chip: Chip) -> tuple[int, int] | None:
    """Rows of a batch tile and steps of a block of time; None if none fits.

    As few batch tiles as there are cores, where that leaves room for 8 steps: each
    tile takes all the weights through the matrix unit once a step.
    """
    # some is for the compiler
    room = chip.vmem - chip.vmem // 8 - size.fixed
    for n in range(chip.cores, ceil(B / ROWS) + chip.cores):
        rows = ROWS * ceil(B / n / ROWS)
        most = min(T, MOST_STEPS, max(8, BLOCKS // (rows * size.step)))
        steps = min(most, (room // rows - size.row) // size.step)
        enough = rows <= MOST_ROWS and steps >= min(T, 8)
        if steps >= 1 and (enough or rows == ROWS):
            return rows, ceil(T / ceil(T / steps))
    return None


def over_time(
    step: Step, weights: Any, carry: Any, x: Any, reverse: bool, elsewhere: bool
) -> Any:
    """`lax.scan` of `partial(step, weights)` over axis 1 of `x`, leaves (B, T, W)."""
    scan = partial(_scan, step, chip=chip(), reverse=reverse)
    args = jax.tree.map(lambda a: a[None], (weights, (carry, x)))
    return jax.tree.map(lambda a: a[0], jax.jit(partial(_fold, scan, elsewhere))(*args))


def _fold(scan: partial, elsewhere: bool, weights: Any, batch: Any) -> Any:
    """`scan(weights, batch)`; an axis of `vmap` goes into its members or its batch."""
    call = custom_vmap(partial(_bind, scan, elsewhere))

    @call.def_vmap
    def _(N: int, mapped: Any, weights: Any, batch: Any) -> tuple[Any, Any]:
        members = any(jax.tree.leaves(mapped[0]))
        # as the minor part of the batch: if that is sharded, it stays where it is
        axis, at = (0, 0) if members else (1, 2)

        def fold(a: Array, is_mapped: bool) -> Array:
            a = a if is_mapped else jnp.broadcast_to(a, (N, *a.shape))
            a = jnp.moveaxis(a, 0, at)
            return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])

        def unfold(a: Array) -> Array:
            split = (N, -1) if members else (-1, N)
            a = a.reshape(*a.shape[:axis], *split, *a.shape[axis + 1 :])
            return jnp.moveaxis(a, at, 0)

        if members:
            weights = jax.tree.map(fold, weights, mapped[0])
        out = _fold(scan, elsewhere, weights, jax.tree.map(fold, batch, mapped[1]))
        return jax.tree.map(unfold, out), jax.tree.map(lambda _: True, out)

    return call(weights, batch)


# XLA does not split a kernel over devices, and `custom_partitioning` does not reach
# its TPU compiler. So this primitive becomes a `shard_map` when it is lowered: only
# then is it known whether there are devices to share it.
scan_p = Primitive("jaxseq_scan")
scan_p.multiple_results = True


def _bind(scan: partial, elsewhere: bool, weights: Any, batch: Any) -> Any:
    args, tree = jax.tree.flatten((weights, batch))
    out, out_tree = jax.tree.flatten(_outputs(scan.args[0], weights, batch))
    bind = partial(
        scan_p.bind, scan=scan, tree=tree, out=tuple(out), elsewhere=elsewhere
    )
    if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types:
        x = jax.tree.leaves(batch[1])[0]
        spec = PartitionSpec(*jax.typeof(x).sharding.spec[:2])
        bind = jax.sharding.auto_axes(bind, out_sharding=[spec] * len(out))
    return out_tree.unflatten(bind(*args))


@scan_p.def_abstract_eval
def _avals(*args: Any, out: Any, **_: Any) -> list[Any]:
    mesh, kind = args[0].sharding.mesh, _varying(args)

    def aval(a: Any) -> Any:
        whole = NamedSharding(mesh, PartitionSpec(*[None] * a.ndim))
        return jax.core.ShapedArray(
            a.shape, a.dtype, sharding=whole, manual_axis_type=kind
        )

    return list(map(aval, out))


def _varying(avals: Any) -> ManualAxisType:
    """The axes of `shard_map` over which any of these varies."""
    axes = (a.manual_axis_type.varying for a in avals)
    return ManualAxisType(varying=frozenset().union(*axes))


def _lower(ctx: Any, *values: Any, scan: partial, tree: Any, **_: Any) -> Any:
    run = lambda *args: jax.tree.leaves(scan(*tree.unflatten(args)))
    devices = getattr(ctx.module_context.axis_context, "num_devices", None)
    mesh = ctx.avals_in[0].sharding.mesh
    if mesh.empty and devices is not None:
        mesh = AbstractMesh((devices,), ("devices",))
    axes = zip(mesh.axis_names, mesh.axis_types, strict=True)
    names = [name for name, kind in axes if kind != AxisType.Manual]
    if names and devices != 1:
        run = _share(run, tree, ctx.avals_in, mesh, names)
    plain = [jax.core.ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
    return mlir.lower_fun(run, multiple_results=True)(
        ctx.replace(avals_in=plain), *values
    )


def _lower_elsewhere(
    ctx: Any, *values: Any, scan: partial, tree: Any, elsewhere: bool, **_: Any
) -> Any:
    if INTERPRET:
        return _lower(ctx, *values, scan=scan, tree=tree)
    platforms = ctx.platforms or ctx.module_context.platforms
    here = " or ".join(platforms)
    check(elsewhere, "implementation", "None or 'scan' here", f"'pallas' on a {here}")
    plain = partial(_plain_scan, *scan.args, reverse=scan.keywords["reverse"])
    run = lambda *args: jax.tree.leaves(plain(*tree.unflatten(args)))
    return mlir.lower_fun(run, multiple_results=True)(ctx, *values)


mlir.register_lowering(scan_p, _lower, platform="tpu")
mlir.register_lowering(scan_p, _lower_elsewhere)


def _plain_scan(step: Step, weights: Any, batch: Any, *, reverse: bool) -> Any:
    by_time = partial(jax.tree.map, lambda a: jnp.moveaxis(a, 1, 0))

    def member(weights: Any, batch: Any) -> Any:
        carry, x = batch
        carry, y = lax.scan(partial(step, weights), carry, by_time(x), reverse=reverse)
        return carry, by_time(y)

    return jax.vmap(member)(weights, batch)


def _share(run: Callable, tree: Any, avals: Any, mesh: Any, names: Any) -> Callable:
    """`run`, with the members or the batch split over as many devices as divide it."""
    weights, batch = tree.unflatten(avals)
    M, B = jax.tree.leaves(batch)[0].shape[:2]
    devices = prod(mesh.shape[name] for name in names)
    if M % devices == 0:
        whole = part = PartitionSpec(tuple(names))
    else:
        axes, n = [], 1
        for name in names:
            if B % (n * mesh.shape[name]) == 0:
                axes, n = [*axes, name], n * mesh.shape[name]
        whole, part = PartitionSpec(), PartitionSpec(None, tuple(axes))
    n = len(jax.tree.leaves(weights))
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(whole,) * n + (part,) * (len(avals) - n),
        out_specs=part,
        axis_names=set(names),
        check_vma=False,
    )


def strip(tree: Any, *lead: int) -> Any:
    """Shapes of the last axes of arrays, behind others."""
    shape = lambda a: jax.ShapeDtypeStruct((*lead, a.shape[-1]), a.dtype)
    return jax.tree.map(shape, tree)


def _outputs(step: Step, weights: Any, batch: Any) -> Any:
    """Shapes of the carry and y of a scan."""
    carry, x = batch
    M, B, T, _ = jax.tree.leaves(x)[0].shape
    one = [jax.ShapeDtypeStruct(w.shape[1:], w.dtype) for w in weights]
    _, y = jax.eval_shape(step, one, *strip(batch, ROWS))
    return strip(carry, M, B), strip(y, M, B, T)


def count(step: Step, weights: Any, carry: Any, x: Any) -> Bytes:
    """VMEM of a scan, from shapes of weights (..., I, J) and others (..., W).

    What streams is there twice: one block is in use while the other is on its way.
    As much as one step of it is counted for values in between.
    """
    one = [jax.ShapeDtypeStruct(w.shape[-2:], w.dtype) for w in weights]
    carry, x = strip((carry, x), ROWS)
    _, y = jax.eval_shape(step, one, carry, x)
    wide = lambda a: LANES * ceil(a.shape[-1] / LANES) * a.dtype.itemsize
    width = lambda tree: sum(map(wide, jax.tree.leaves(tree)))
    fixed = sum(ROWS * ceil(w.shape[0] / ROWS) * wide(w) for w in one)
    streams = 2 * width((x, y))
    return Bytes(fixed, 5 * width(carry) + streams, streams)


def _scan(
    step: Step, weights: Any, batch: Any, *, chip: Chip, reverse: bool
) -> tuple[Any, Any]:
    """`lax.scan` of `step` as one kernel.

    Leaves of `weights` are (M, I, J); `batch` is the carry, leaves (M, B, H), and x,
    leaves (M, B, T, W).
    """
    carry, x = batch
    M, B, T, _ = jax.tree.leaves(x)[0].shape
    size = count(step, weights, carry, x)
    tile = tiles(B, T, size, chip)
    if tile is None:
        raise ValueError(f"{size.total(ROWS, 1)} bytes do not fit into {chip}")
    rows, steps = tile
    n_rows, n_steps = ceil(B / rows), ceil(T / steps)
    kind = _varying(map(jax.typeof, jax.tree.leaves((weights, batch))))

    def widen(a: Array) -> Array:
        more = n_rows * rows - B
        return jnp.pad(a, [(0, 0), (0, more)] + [(0, 0)] * (a.ndim - 2)) if more else a

    int0 = partial(jnp.int32, 0)  # of 32 bits even where 64 are enabled

    def place(t: Any) -> Any:
        return n_steps - 1 - t if reverse else t

    def spec(a: Any) -> pl.BlockSpec:
        width = a.shape[-1]
        if len(a.shape) == 3:
            return pl.BlockSpec((None, rows, width), lambda b, m, t: (m, b, int0()))
        return pl.BlockSpec(
            (None, steps, rows, width), lambda b, m, t: (m, place(t), b, int0())
        )

    def kernel(w: Any, first: Any, x: Any, last: Any, y: Any, *now: Any) -> None:
        now = jax.tree.unflatten(jax.tree.structure(carry), now)
        block = pl.program_id(2)
        here = jnp.int32(steps)
        if T % steps:  # past T there is nothing to run
            here = jnp.minimum(here, T - place(block) * steps)

        @pl.when(block == 0)
        def _() -> None:
            _write(now, _read(first))

        def body(k: Array, _: None) -> None:
            t = here - 1 - k if reverse else k
            state, y_t = step(_read(w), _read(now), _read(x, t))
            _write(now, state)
            _write(y, y_t, t)

        lax.fori_loop(jnp.int32(0), here, body, None)

        @pl.when(block == n_steps - 1)
        def _() -> None:
            _write(last, _read(now))

    def weight_spec(w: Any) -> pl.BlockSpec:
        return pl.BlockSpec(
            (None, *w.shape[1:]),
            lambda b, m, t: (m, int0(), int0()),
            pipeline_mode=pl.Buffered(1),
        )

    def shape(a: Any) -> Any:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, manual_axis_type=kind)

    by_time = partial(jax.tree.map, lambda a: jnp.swapaxes(a, 1, 2))
    carry, x = jax.tree.map(widen, batch)
    last, y = _outputs(step, weights, (carry, x))
    x, y = by_time(x), jax.eval_shape(by_time, y)
    last, y = pl.pallas_call(
        kernel,
        out_shape=jax.tree.map(shape, (last, y)),
        grid=(n_rows, M, n_steps),
        in_specs=(
            jax.tree.map(weight_spec, weights),
            *jax.tree.map(spec, (carry, x)),
        ),
        out_specs=jax.tree.map(spec, (last, y)),
        scratch_shapes=[
            pltpu.VMEM((rows, a.shape[-1]), a.dtype) for a in jax.tree.leaves(carry)
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=size.total(rows, steps) + chip.vmem // 8,
        ),
        interpret=INTERPRET,
    )(weights, carry, x)
    return jax.tree.map(lambda a: a[:, :B], (last, by_time(y)))


def _read(refs: Any, *at: Any) -> Any:
    return jax.tree.map(lambda ref: ref[at or ...], refs)


def _write(refs: Any, values: Any, *at: Any) -> None:
    def write(ref: Any, value: Array) -> None:
        ref[at or ...] = value

    jax.tree.map(write, refs, values)
