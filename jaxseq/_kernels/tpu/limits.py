"""What the kernel for TPUs cannot run, said in a sentence."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.extend.core import jaxprs_in_params

from jaxseq._base.dtypes import is_float
from jaxseq._engine.chain import product_p
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.steps import evaluate, product_back, pull
from jaxseq._engine.types import Devices, Spec, Weights, is_saved
from jaxseq._kernels.call import Operands
from jaxseq._kernels.tpu.steps import Marks, backward_step, forward_step, own_extra
from jaxseq._kernels.tpu.tiles import LANES, ROWS, Bytes, chip, count, tiles

# of updates and their derivatives; all of them pointwise, and known to compile
PRIMITIVES = frozenset(
    "abs add add_any and broadcast_in_dim clamp concatenate convert_element_type"
    " cos custom_jvp_call div eq exp ge gt integer_pow jit le log log1p logistic lt max"
    " min mul ne neg not one_minus_square or pad select_n sign sin slice split sqrt"
    " square stop_gradient sub tanh".split()
)


def why_not(devices: Devices, spec: Spec, weights: Weights, *others: Any) -> str | None:
    """The limit of the kernel that a run with these and others would pass, or None."""
    if spec.dtype is None:
        return "it is the body of a scan"
    step, dtype = spec.step, jnp.dtype(spec.dtype)
    if dtype not in (jnp.float32, jnp.bfloat16):
        return f"{dtype} is neither float32 nor bfloat16"
    if step.on_mesh:
        return "the update holds arrays of a mesh"
    for a in jax.tree.leaves(others):
        if any(map(is_symbolic_dim, a.shape)):
            return f"the shape {a.shape} is not known yet"
        if 0 in a.shape:
            return f"an array of shape {a.shape} is empty"
    for a in step.z_x:
        if not is_float(a):
            return f"an input is {a.dtype}"
    for a in step.extra:
        if len(a.shape) != 1 or a.dtype != step.state[0].dtype:
            return f"{a.dtype} of shape {a.shape} in extra is not a vector of floats"
    for k in step.called:
        if len(weights.w_h[k].shape) != 2:
            return f"a matrix {weights.w_h[k].shape} is in blocks"
    matrices = [step.widths[k] for k in step.called]
    vectors = (a.shape for a in (*step.state, *step.z_x, *step.extra))
    for width in (n for shape in (*vectors, *matrices) for n in shape):
        if width % LANES:
            return f"the width {width} is not a multiple of {LANES}"
    if (limit := _limit_of_update(spec)) is not None:
        return limit
    on = chip(devices)
    size = max(_sizes(spec, weights), key=lambda size: size.total(ROWS, 1))
    if tiles(1, 1, size, on) is None:
        need, have = (f"{n / 2**20:.3g} MiB" for n in (size.total(ROWS, 1), on.vmem))
        return f"weights and blocks of {need} do not fit into {have} of VMEM"
    return None


def _rows(shapes: Any) -> Any:
    row = lambda a: jax.ShapeDtypeStruct((ROWS, a.shape[-1]), a.dtype)
    return jax.tree.map(row, tuple(shapes))


def _limit_of_update(spec: Spec) -> str | None:
    """What there is in the update and its derivative that the kernel has not."""
    step = spec.step
    z_x, z, state, extra = map(_rows, (step.z_x, step.z, step.state, step.extra))
    ask = product_back(step)
    onward = lambda k, a: product_p.bind(a, k=k, width=step.widths[k][1])
    there = partial(evaluate, step, 1, onward, extra_axis=0)
    back = partial(pull, step, 1, ask)
    for f, args in (
        (there, (z_x, state, extra)),
        (back, (z_x, z, state, extra, state, (None,))),
    ):
        with jax.sharding.use_abstract_mesh(NO_MESH):
            closed = jax.make_jaxpr(f)(*args)
        if closed.consts:
            return "a derivative of the update's own closes over an array"
        eqns = list(_inside(closed.jaxpr))
        known = {*PRIMITIVES, product_p.name}
        if unknown := {e.primitive.name for e in eqns} - known:
            return f"no kernel has {', '.join(sorted(unknown))}"
        for e in eqns:
            for v in e.outvars:
                if not _is_whole(v.aval.shape):
                    return f"the update has an array {v.aval.shape} for {ROWS} rows"
            if e.primitive is product_p and len(e.outvars[0].aval.shape) != 2:
                return "a matrix reads what is the same for all rows"
            starts = e.params["start_indices"] if e.primitive.name == "slice" else ()
            if any(n % LANES for n in starts):
                return f"the update cuts at {starts}, not a multiple of {LANES}"
    return None


def _is_whole(shape: tuple[int, ...]) -> bool:
    """Whether it is a scalar, or whole lanes of each row or of all of them."""
    return not shape or (shape[:-1] in ((), (ROWS,)) and shape[-1] % LANES == 0)


def _inside(jaxpr: Any) -> Iterator[Any]:
    for e in jaxpr.eqns:
        if not _is_idle(e):
            yield e
        for inner in jaxprs_in_params(e.params):
            yield from _inside(inner)


def _is_idle(e: Any) -> bool:
    """Whether it only says how an array lies on a mesh."""
    name, params = e.primitive.name, e.params
    same = name == "reshape" and e.invars[0].aval.shape == params["new_sizes"]
    return same or name == "reshard"


def _sizes(spec: Spec, weights: Weights) -> list[Bytes]:
    """VMEM of the forward and of the backward pass, with all that there may be."""
    spec, step, masked = spec._replace(save=True), spec.step, Marks(True, True)
    struct = jax.ShapeDtypeStruct
    w_h = [struct(step.widths[k], spec.dtype) for k in step.called]
    extra = [struct((1, *a.shape), a.dtype) for a in step.extra]
    z_x, z, state = map(_rows, (step.z_x, step.z, step.state))
    (y,) = _rows([struct(step.state[0].shape, spec.dtype)])
    bits = struct((ROWS, 1), jnp.int32)
    own = own_extra(spec)
    d_extra = _rows([a for a, yes in zip(step.extra, own, strict=True) if yes])
    given = iter(d_extra)
    d_extra = tuple(next(given) if yes else None for yes in own)
    keep_state = tuple(is_saved(spec, weights)[1])
    there = Operands((w_h, extra), state, state, (z_x, bits))
    d_start = state if spec.starts else None
    x = z_x, z, state, y, bits
    back = Operands((w_h, extra), None, (state, d_extra, d_start), x)
    steps = (
        partial(forward_step, spec, keep_state, masked),
        partial(backward_step, spec, masked),
    )
    with jax.sharding.use_abstract_mesh(NO_MESH):
        return [
            count(operands, jax.eval_shape(run, *operands)[1])
            for run, operands in zip(steps, (there, back), strict=True)
        ]
