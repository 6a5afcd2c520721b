"""One step forward and one step back, for any number of rows and any product.

`product(k, a)` is what stands for a row times matrix k, or times its transpose on the
way back: the primitive of a chain, or a product on a chip.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Literal

from jaxseq._base.dtypes import floats, with_floats
from jaxseq._base.mesh import varying
from jaxseq._engine.chain import needed, run
from jaxseq._engine.chain import product as chain_product
from jaxseq._engine.extras import Part, part_of
from jaxseq._engine.mesh import NO_MESH
from jaxseq._engine.step import Step

Product = Callable[[int, Array], Array]


def over_rows(f: Callable[..., Any], batch: int, in_axes: Any) -> Callable[..., Any]:
    """`f` of one row over `batch` axes in front, one by one."""
    for _ in range(batch):
        f = jax.vmap(f, in_axes)
    return f


def cut_off(valid: Array | None, a: Any) -> Any:
    """`a`, with no gradient where it is not valid."""
    if valid is None or a is None or not jnp.issubdtype(a.dtype, jnp.inexact):
        return a
    return jnp.where(valid, a, lax.stop_gradient(a))


def evaluate(
    step: Step,
    batch: int,
    product: Product,
    z_x: Any,
    state: Any,
    extra: Any,
    valid: Array | None = None,
    shifts: Any = None,
    extra_axis: int | None = None,
) -> tuple[list[Array], list[Array], list[Array], list[Array]]:
    """The new state, outputs, products, and what the matrices read, of rows.

    `shifts` are added to the products. A row that is not valid has no gradient,
    whatever the update makes of it. With `extra_axis` 0 `extra` has rows too.
    """

    if step.varied is not None and varying(state):
        step = step.varied

    def on_row(z_x: Any, state: Any, extra: Any, valid: Any, shifts: Any) -> Any:
        cut = partial(cut_off, valid)

        def shifted(k: int, a: Array) -> Array:
            z = product(k, a if valid is None else jnp.where(valid, a, 0))
            return cut(z if shifts is None else z + shifts[step.called.index(k)])

        args = jax.tree.map(cut, (*z_x, *state, *extra))
        return run(step.chain, args, shifted)

    over = over_rows(on_row, batch, (0, 0, extra_axis, 0, 0))
    out = over(tuple(z_x), tuple(state), tuple(extra), valid, shifts)
    n, m, p = len(step.state), len(step.ys), len(step.called)
    return out[:n], out[n : n + m], out[n + m : n + m + p], out[n + m + p :]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _known(product: Any, k: int, a: Array, z: Array, tap: Array) -> Array:
    """`z`, known to be product `k` of `a`; its cotangent comes out at `tap` too."""
    return z


def _known_back(product: Any, k: int, _: None, d: Array) -> tuple[Array, None, Array]:
    return product(k, d), None, d


_known.defvjp(lambda product, k, a, z, tap: (z, None), _known_back)


class Pulled(NamedTuple):
    """Gradients of a step; of a part that is not float, and of no use, None."""

    z_x: tuple[Any, ...]
    z: tuple[Array, ...]
    state: tuple[Any, ...]
    extra: tuple[Any, ...]


def pull(
    step: Step,
    batch: int,
    product: Product,
    z_x: Any,
    z: Any,
    state: Any,
    extra: Any,
    d_new: Any,
    d_ys: Any,
    valid: Array | None = None,
) -> Pulled:
    """The gradients of the step whose products came to `z`.

    `d_new` and `d_ys` are None for what has no gradient here. Of `extra` those of
    rank 1 or less are given for each row, and have rows here; those of a higher rank
    are summed over the rows.
    """
    per_row = tuple(0 if len(a.shape) < 2 else None for a in step.extra)

    def on_row(z_x: Any, state: Any, extra: Any, z: Any, taps: Any, valid: Any) -> Any:
        cut = partial(cut_off, valid)

        def known(k: int, a: Array) -> Array:
            i = step.called.index(k)
            return cut(_known(product, k, a, z[i], taps[i]))

        args = jax.tree.map(cut, [*z_x, *state, *extra], is_leaf=lambda a: a is None)
        out = run(step.summed, args, known)
        return [a for a, d in zip(out, d_out, strict=False) if d is not None]

    def f(z_x: Any, state: Any, extra: Any, taps: Any) -> Any:
        whole = map(with_floats, (z_x, state, extra), everything)
        return over_rows(on_row, batch, (0, 0, per_row, 0, 0, 0))(
            *whole, z, taps, valid
        )

    d_out = *d_new, *d_ys
    everything = tuple(z_x), tuple(state), tuple(extra)
    taps = tuple(map(jnp.zeros_like, z))
    _, back = jax.vjp(f, *map(floats, everything), taps)
    d_z_x, d_state, d_extra, d_z = back([d for d in d_out if d is not None])
    return Pulled(d_z_x, d_z, d_state, d_extra)


class Reads(NamedTuple):
    """What has to be kept of a step for its gradient."""

    x: tuple[bool, ...]  # input maps that are read
    state: tuple[bool, ...]  # parts of the old state
    parts: tuple[Part | None, ...]  # extras whose gradient lies in those of products


_reads: WeakKeyDictionary[Step, Reads] = WeakKeyDictionary()


def reads(step: Step) -> Reads:
    if step not in _reads:
        _reads[step] = _find_reads(step)
    return _reads[step]


def _find_reads(step: Step) -> Reads:
    """Found on the jaxpr of the pulled back step."""
    closed, out = pulled_back(step)
    jaxpr = closed.jaxpr
    n_x, n_z, n = len(step.z_x), len(step.z), len(step.state)
    read = {
        v
        for e in needed(jaxpr.eqns, jaxpr.outvars)
        for v in e.invars
        if type(v) is not Literal
    }
    read |= {v for v in jaxpr.outvars if type(v) is not Literal}
    x, state = jaxpr.invars[:n_x], jaxpr.invars[n_x + n_z : n_x + n_z + n]
    by_lefts = left_reads(step)
    wholes = *out.z, *out.z_x
    parts = tuple(part_of(d, wholes, jaxpr) for d in out.extra)
    return Reads(
        tuple((v in read) or by_lefts[i] for i, v in enumerate(x)),
        tuple((v in read) or by_lefts[n_x + i] for i, v in enumerate(state)),
        parts,
    )


_pulled_back: WeakKeyDictionary[Step, tuple[ClosedJaxpr, Pulled]] = WeakKeyDictionary()


def pulled_back(step: Step) -> tuple[ClosedJaxpr, Pulled]:
    """The jaxpr of `pull` for one row, and which of its outputs is which gradient."""
    if step not in _pulled_back:
        f = partial(pull, step, 0, product_back(step))
        ys = zip(step.ys, step.tells, strict=True)
        d_ys = floats(tuple(a if p is None else None for a, p in ys))
        args = step.z_x, step.z, step.state, step.extra, floats(step.state), d_ys
        with jax.sharding.use_abstract_mesh(NO_MESH):
            closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
        tree = jax.tree.structure(shapes)
        _pulled_back[step] = closed, tree.unflatten(closed.jaxpr.outvars)
    return _pulled_back[step]


def product_back(step: Step) -> Product:
    return lambda k, d: chain_product(k, d, step.widths[k][0])


def left_reads(step: Step) -> list[bool]:
    """Which input maps and parts of the state the matrices read, but for h itself."""
    n = len(step.z_x)
    told = {step.recall.invars[n + p] for p in step.tells if p is not None}
    read = {v for v in step.recall.outvars if type(v) is not Literal} - told
    read |= {v for stage in step.recall.stages for v in stage.reads}
    return [v in read for v in step.recall.invars]


def lefts_of(
    step: Step, batch: int, z_x: Any, z: Any, state: Any, extra: Any
) -> tuple[Array, ...]:
    """What the matrices read in steps whose products came to `z`; see `recall`."""

    def on_row(z_x: Any, z: Any, state: Any, extra: Any) -> Any:
        known = lambda k, a: z[step.called.index(k)]
        return tuple(run(step.recall, [*z_x, *state, *extra], known))

    over = partial(over_rows, on_row, in_axes=(0, 0, 0, None))
    if step.alone:
        one = lambda now: over(batch - 1)(*now, extra)
        return lax.map(one, (z_x, z, state))
    return over(batch)(z_x, z, state, extra)
