"""Which arrays of a step have rows, and how many numbers each row has."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxseq._base.dtypes import FLOATS, is_float, state_dtype
from jaxseq._base.masks import Masks
from jaxseq._engine.step import Step
from jaxseq._kernels.cpu.elements import Unknown, is_computed_in, is_held


class Rows(NamedTuple):
    """Of the arrays that a step is given, as they are without a batch."""

    lead: tuple[int, ...]  # the axes of its rows, which come first; () for one row
    dtype: Any

    def has(self, a: Any) -> bool:
        """Whether an array has rows; else all rows have the same."""
        return a.shape[: len(self.lead)] == self.lead

    def inside(self, a: Any) -> tuple[int, ...]:
        return a.shape[len(self.lead) :] if self.has(a) else a.shape

    def width(self, a: Any) -> int:
        return math.prod(self.inside(a))

    def width_of_weight(self, extra: Any) -> int:
        has = self.is_given_rows(extra)
        return self.width(extra) if has else math.prod(extra.shape)

    def is_given_rows(self, extra: Any) -> bool:
        """Whether a weight of the update has one part for each row."""
        return bool(self.lead) and len(extra.shape) > 1 and self.has(extra)


def rows_of(step: Step) -> Rows:
    lead = _main(step).shape[:-1]
    return Rows(() if math.prod(lead) == 1 else lead, dtype_of(step))


def dtype_of(step: Step) -> Any:
    """What the kernel computes in: float32 where the state has 16 bits."""
    dtype = _main(step).dtype
    return jnp.dtype(state_dtype(dtype) if dtype.name in FLOATS else dtype)


def _main(step: Step) -> Any:
    """An array with all axes of rows: what a matrix reads, or else the part of the
    state with the most axes.
    """
    state = list(filter(is_float, step.state)) or step.state
    return (*step.lefts, max(state, key=lambda a: len(a.shape)))[0]


def check(step: Step) -> Rows:
    """The rows of a step, if the kernel can have them."""
    rows = rows_of(step)
    for a in (*step.z_x, *step.state, *step.ys):
        if 0 in a.shape or not (rows.has(a) or math.prod(a.shape) == 1):
            raise Unknown(f"a row has shape {a.shape}")
        if not is_held(rows.dtype, a):
            raise Unknown(f"the state is {rows.dtype}, and a row is {a.dtype}")
    for a in (*step.z, *step.lefts):
        known = is_computed_in(rows.dtype, a)
        if not known or 0 in a.shape or not rows.has(a):
            raise Unknown(f"a matrix is given {a.dtype} of shape {a.shape}")
    for k, a in zip(step.called, step.lefts, strict=True):
        if rows.width(a) != step.widths[k][0]:
            raise Unknown(f"a matrix is given a part of {a.shape} for each row")
    for a in step.extra:
        if 0 in a.shape or not is_held(rows.dtype, a):
            text = f"{a.dtype} of shape {a.shape}"
            raise Unknown(f"{text} in extra is empty, or of another dtype")
    return rows


def are_alike(step: Step, batch: tuple[int, ...], masks: Masks) -> bool:
    """Whether some arguments of the step have no rows, and are alike for all rows."""
    rows = rows_of(step)
    some = not all(map(rows.has, (*step.z_x, *step.state)))
    return some and batch == () and masks.valid is None and masks.keep is None


class Batch(NamedTuple):
    """From arrays to those of the kernel, which are `(..., B, F)`, and back."""

    rows: Rows
    batch: tuple[int, ...]  # what lies in front of the axes of a step

    @property
    def lead(self) -> tuple[int, ...]:
        return *self.batch, *self.rows.lead

    @property
    def B(self) -> int:
        return math.prod(self.lead)

    def flat(
        self,
        a: Array,
        like: Any,
        time: tuple[int, ...] = (),
        last: bool = False,
        once: bool = False,
    ) -> Array:
        """An array with time first, or `last`: behind the batch.

        An array that is the same for all rows is repeated for each of them. With `once`
        only the first row has it, and the others have zeros.
        """
        n, F = len(self.batch) + (0 if last else len(time)), self.rows.width(like)
        if not self.rows.has(like):
            lead = self.rows.lead
            a = a.reshape(*a.shape[:n], *(1 for _ in lead), *a.shape[n:])
            more = [(0, 0)] * a.ndim
            more[n : n + len(lead)] = [(0, k - 1) for k in lead]
            a = jnp.pad(a, more, "constant" if once else "edge")
        return a.reshape((self.B, *time, F) if last else (*time, self.B, F))

    def whole(
        self,
        like: Any,
        time: tuple[int, ...] = (),
        last: bool = False,
        total: bool = False,
    ) -> Any:
        """A function from what the kernel gives to such an array.

        If all rows have the same, it is that of the first row; with `total`, the sum
        over the rows.
        """

        def one(a: Array) -> Array:
            own = self.lead + time if last else time + self.lead
            a = a.reshape(*own, *self.rows.inside(like))
            if self.rows.has(like):
                return a
            n, k = len(self.batch) + (0 if last else len(time)), len(self.rows.lead)
            if total:
                return a.sum(tuple(range(n, n + k)))
            return a[(slice(None),) * n + (0,) * k]

        return one

    def total(self, a: Array, like: Any) -> Array:
        """Of the gradients of a weight in each row, as `Gradients` has them."""
        if self.rows.is_given_rows(like):
            return a.reshape(-1, *like.shape).sum(0)
        a = a.reshape(*self.batch, -1, a.shape[-1]).sum(len(self.batch))
        a = a.reshape(*self.batch, *like.shape)
        return a if len(like.shape) < 2 else a.sum(tuple(range(len(self.batch))))
