"""What travels through the engine: nothing else is passed from file to file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._base.masks import Masks
from jaxseq._engine.step import Step
from jaxseq._engine.steps import reads


class Spec(NamedTuple):
    """What is known before any value is; hashable."""

    step: Step
    reverse: bool
    dtype: Any  # of ys, and of what the matrices read; None as the step has them
    holes: bool  # whether steps between valid ones may be not valid
    starts: bool  # whether a reset goes to a start that may have a gradient
    implementation: str | None = None
    remat: int | None = None
    save: bool = False  # whether a run gives what its gradient needs
    batch_first: bool = False  # whether x and y are (..., T, F); not with `save`
    turned: bool = False  # whether x was (..., T, F) before, and y will be
    settings: Any = None  # of JAX, where the run was written


def settings() -> tuple[bool, Any]:
    """What of JAX's settings a program depends on that is traced when it is lowered."""
    config: Any = jax.config
    return config.jax_enable_x64, config.jax_default_matmul_precision


@contextmanager
def as_written(spec: Spec) -> Iterator[None]:
    """With the settings that a run was written with."""
    x64, precision = spec.settings or settings()
    with jax.enable_x64(x64), jax.default_matmul_precision(precision):
        yield


class Weights(NamedTuple):
    """Leaves, in the dtype of the sums."""

    w_x: tuple[Array | None, ...]  # of each input; None passes it on
    b: tuple[Array | None, ...]
    w_h: tuple[Array, ...]
    extra: tuple[Array, ...]


class Inputs(NamedTuple):
    """Leaves over time, and of the state."""

    x: tuple[Array, ...]  # (T, ..., D), or (..., T, D) if `spec.batch_first`
    state: tuple[Array, ...]  # (..., F)
    start: tuple[Array, ...] | None  # (..., F), where a reset goes; zeros if None
    masks: Masks


class Before(NamedTuple):
    """What `y` was before each step."""

    y: Array  # (T, ..., F)
    first: Array  # (..., F)


class Saved(NamedTuple):
    """What the backward pass needs of every step, time first."""

    z_x: tuple[Array | None, ...]  # input maps that are read, but not x itself
    z: tuple[Array, ...]  # products, or z_x + product if they are read by their sum
    # parts of the old state that are read; `Before`s only where an output tells them
    state: tuple[Array | Before | None, ...]


class Gradients(NamedTuple):
    """Of all that a run in time depends on but the matrices."""

    z_x: tuple[Array | None, ...]  # (T, ..., Z)
    z: tuple[Array, ...]  # (T, ..., O)
    extra: tuple[Array | None, ...]  # of each row (..., E), or summed over the rows
    state: tuple[Array | None, ...]
    start: tuple[Array, ...] | None


class Devices(NamedTuple):
    """Those that a program is lowered for."""

    number: int | None  # None in a `shard_map`
    mesh: Any  # an `AbstractMesh`; empty if the arrays have none
    exported: bool = False  # by `jax.export`, for a process that may lack jaxseq


def is_saved(spec: Spec, weights: Weights) -> tuple[list[bool], list[bool]]:
    """Which input maps and which parts of the old state are saved."""
    step, needs = spec.step, reads(spec.step)
    z_x = [
        w is not None and read and k is None
        for w, read, k in zip(weights.w_x, needs.x, step.sums, strict=True)
    ]
    state = list(needs.state)
    lefts = map(step.left_part, range(len(step.called)))
    if spec.holes:  # then y does not tell what h was
        for p in lefts:
            if p is not None:
                state[p] = True
    else:
        for p, y in zip(step.tells, step.ys, strict=True):
            if p is not None and step.state[p].dtype == out_dtype(spec, y):
                state[p] = False
    return z_x, state


def out_dtype(spec: Spec, y: Any) -> Any:
    return jnp.dtype(y.dtype if spec.dtype is None else spec.dtype)


def batch_of(step: Step, state: Any) -> tuple[int, ...]:
    """What lies in front of the step's own shapes; parts may be None."""
    parts = zip(step.state, state, strict=True)
    own, a = next((own, a) for own, a in parts if a is not None)
    return a.shape[: a.ndim - len(own.shape)]


def to_time_first(a: Array) -> Array:
    """`(..., T, F)` as `(T, ..., F)`."""
    return jnp.moveaxis(a, -2, 0)


def to_batch_first(a: Array) -> Array:
    """`(T, ..., F)` as `(..., T, F)`."""
    return jnp.moveaxis(a, 0, -2)


def room(T: int, batch: tuple[int, ...], a: Any, dtype: Any = None) -> Array:
    """Zeros `(T, ..., F)`, for values like `a` of one step."""
    return jnp.zeros((T, *batch, *a.shape), a.dtype if dtype is None else dtype)
