"""`lax.scan` over time as one Pallas kernel for TPUs.

The weights and the carry stay in VMEM, the memory beside the matrix units, while
blocks of time stream through it.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import Literal, jaxprs_in_params
from jax.sharding import ManualAxisType

from jaxseq._base.mesh import varying
from jaxseq._kernels import call
from jaxseq._kernels.call import Operands
from jaxseq._kernels.tpu.tiles import ROWS, Chip, count, tile_of, tiles

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]  # of Operands: carry, y


def scan(step: Step, chip: Chip, reverse: bool, operands: Operands) -> tuple[Any, Any]:
    """Runs `step` over time: the carry `(M, B, W)` and y `(M, T, B, W)`.

    Leaves of `operands` have their M members in front.
    """
    M, B, _ = jax.tree.leaves(operands.carry)[0].shape
    T = jax.tree.leaves(operands.x)[0].shape[1]
    step, operands = only_read(step, operands)
    carry = operands.carry
    _, y_row = jax.eval_shape(step, *tile_of(operands, ROWS))
    size = count(operands, y_row)
    tile = tiles(B, T, size, chip)
    if tile is None:
        raise ValueError(f"{size.total(ROWS, 1)} bytes do not fit into {chip}")
    rows, steps = tile
    n_rows, n_steps = ceil(B / rows), ceil(T / steps)
    kind = ManualAxisType(varying=varying(operands))
    int0 = partial(jnp.int32, 0)  # of 32 bits even where 64 are enabled

    def place(t: Any) -> Any:
        return n_steps - 1 - t if reverse else t

    def widen(a: Array) -> Array:
        more = n_rows * rows - B
        none = [(0, 0)] * (a.ndim - 2)
        return jnp.pad(a, [*none, (0, more), (0, 0)]) if more else a

    def of_weights(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec(
            (None, *a.shape[1:]),
            lambda b, m, t: (m, int0(), int0()),
            pipeline_mode=pl.Buffered(1),
        )

    def of_rows(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec((None, rows, a.shape[-1]), lambda b, m, t: (m, b, int0()))

    def of_steps(a: Any) -> pl.BlockSpec:
        return pl.BlockSpec(
            (None, steps, rows, a.shape[-1]),
            lambda b, m, t: (m, place(t), b, int0()),
        )

    def kernel(w: Any, fixed: Any, first: Any, x: Any, last: Any, y: Any, *now: Any):
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
            state, y_t = step(_read(w), _read(fixed), _read(now), _read(x, t))
            _write(now, state)
            _write(y, y_t, t)

        lax.fori_loop(jnp.int32(0), here, body, None)

        @pl.when(block == n_steps - 1)
        def _() -> None:
            _write(last, _read(now))

    def shape(*lead: int) -> Callable[[Any], Any]:
        return lambda a: jax.ShapeDtypeStruct(
            (*lead, a.shape[-1]), a.dtype, manual_axis_type=kind
        )

    whole = n_rows * rows
    last = jax.tree.map(shape(M, whole), carry)
    y = jax.tree.map(shape(M, T, whole), y_row)
    specs = of_weights, of_rows, of_rows, of_steps
    out = pl.pallas_call(
        kernel,
        out_shape=(last, y),
        grid=(n_rows, M, n_steps),
        in_specs=[jax.tree.map(*each) for each in zip(specs, operands, strict=True)],
        out_specs=(jax.tree.map(of_rows, last), jax.tree.map(of_steps, y)),
        scratch_shapes=[
            pltpu.VMEM((rows, a.shape[-1]), a.dtype) for a in jax.tree.leaves(carry)
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=size.total(rows, steps) + chip.vmem // 8,
        ),
        interpret=call.INTERPRET,
    )(operands.weights, *jax.tree.map(widen, tuple(operands[1:])))
    return jax.tree.map(lambda a: a[..., :B, :], out)


def _read(refs: Any, *at: Any) -> Any:
    return jax.tree.map(lambda ref: ref[at or ...], refs)


def _write(refs: Any, values: Any, *at: Any) -> None:
    def write(ref: Any, value: Array) -> None:
        ref[at or ...] = value

    jax.tree.map(write, refs, values)


def only_read(step: Step, operands: Operands) -> tuple[Step, Operands]:
    """`step` without the operands that it does not read, all but the carry.

    On a TPU, what a kernel is given and does not read may put zeros into what it
    does read: https://github.com/jax-ml/jax/issues/39744.
    """
    tile = tile_of(operands, ROWS)
    tree = jax.tree.structure(tile)
    jaxpr = jax.make_jaxpr(step)(*tile).jaxpr
    is_read = tree.unflatten(depends(jaxpr, [True] * len(jaxpr.outvars)))
    is_read = is_read._replace(carry=jax.tree.map(lambda _: True, tile.carry))
    flags = jax.tree.leaves(is_read)
    keep = lambda leaves: tree.unflatten(
        [a if read else None for a, read in zip(leaves, flags, strict=True)]
    )

    def run(*some: Any) -> Any:
        rows = jax.tree.leaves(some[2])[0].shape[0]
        like = jax.tree.leaves(tile_of(Operands(*tile), rows))
        given = iter(jax.tree.leaves(some))
        whole = [
            next(given) if read else jnp.zeros(a.shape, a.dtype)
            for a, read in zip(like, flags, strict=True)
        ]
        return step(*tree.unflatten(whole))

    return run, keep(jax.tree.leaves(operands))


def depends(jaxpr: Any, wanted: list[bool]) -> list[bool]:
    """On which arguments the wanted results of a jaxpr depend."""
    live = {v for v, yes in zip(jaxpr.outvars, wanted, strict=True) if yes}
    live = {v for v in live if type(v) is not Literal}
    for e in reversed(jaxpr.eqns):
        out = [v in live for v in e.outvars]
        if not any(out):
            continue
        inner = list(jaxprs_in_params(e.params))
        used = [True] * len(e.invars)
        if len(inner) == 1 and len(inner[0].invars) == len(e.invars):
            used = depends(inner[0], out)
        read = (v for v, yes in zip(e.invars, used, strict=True) if yes)
        live |= {v for v in read if type(v) is not Literal}
    return [v in live for v in jaxpr.invars]
