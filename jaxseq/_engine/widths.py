"""States as trees: their widths, zeros of them, and a start for each row."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, product
from time import monotonic
from traceback import walk_tb
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from jaxseq._base.check import check, check_batch, check_state, check_value, is_whole
from jaxseq._base.dtypes import state_dtype
from jaxseq._engine.chain import product_p
from jaxseq._engine.update import Shapes, Update, described, traced, width_in


def widths_of(zeros: Any, state: Any, start: Any) -> tuple[Any, str]:
    """The widths of the state, and the argument that says so."""
    if zeros is not None:
        check_widths(zeros, "zeros")
        return zeros, "zeros"
    given = state if state is not None else start
    check(given is not None, "zeros", "widths, without a state or a start", None)
    name = "state" if state is not None else "start"
    check_parts(given, name)
    widths = jax.tree.map(lambda a: a.shape[-1], given)
    check_widths(widths, name)
    return widths, name


MOST_TRIES = 16
MOST_SECONDS = 1.0


def check_fit(update: Update, shapes: Shapes, name: str, error: Exception) -> None:
    """Of an update that failed, says which widths of the state it runs on.

    They are what the argument of that name decides. An error that was raised by JAX or
    here gives way to one that names it; one of the user's own code gets a note.
    """
    state = _fitting(update, shapes)
    if state is None:
        return
    expected = f"rows {described(state)}, which update runs on"
    got = described(shapes.state)
    check(_raised_in(error) not in ("jax", "jaxseq"), name, expected, got)
    error.add_note(f"{name}: expected {expected}, got {got}")


def _raised_in(error: Exception) -> str:
    """The package whose code raised it."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0]


def _fitting(update: Update, shapes: Shapes) -> Any:
    """A state on which an update runs, and calls each matrix; None if none is found."""
    parts, tree = jax.tree.flatten(shapes.state)
    matrices = jax.tree.leaves(shapes.w_h)
    others = jax.tree.leaves((shapes.z_x, shapes.extra))
    sizes = [*map(width_in, matrices), *(n for a in others for n in a.shape)]
    end = monotonic() + MOST_SECONDS
    for widths in islice(_tries([a.shape[0] for a in parts], sizes), MOST_TRIES):
        if monotonic() > end:
            break
        rows = [
            jax.ShapeDtypeStruct((F,), a.dtype)
            for F, a in zip(widths, parts, strict=True)
        ]
        state = tree.unflatten(rows)
        with suppress(Exception):
            jaxpr, _ = traced(update, shapes._replace(state=state))
            # one that is not called says nothing against a width that is wrong
            if sum(e.primitive is product_p for e in jaxpr.eqns) == len(matrices):
                return state
    return None


def _tries(widths: list[Any], sizes: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Other widths: one part has another, or all parts of one width have."""
    seen = {tuple(widths)}
    for F, (i, old) in product(dict.fromkeys(sizes), enumerate(widths)):
        alike = tuple(F if n == old else n for n in widths)
        alone = (*widths[:i], F, *widths[i + 1 :])
        for changed in alike, alone:
            if changed not in seen:
                seen.add(changed)
                yield changed


def check_parts(state: Any, name: str) -> None:
    """Checks that a state is an array, or a NamedTuple of them, nested too."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        for field, part in zip(state._fields, state, strict=True):  # pyright: ignore
            check_parts(part, f"{name}.{field}")
        return
    got = getattr(state, "shape", type(state).__name__)
    is_row = isinstance(got, tuple) and len(got) >= 1
    check(is_row, name, "an array (..., F), or a NamedTuple of such", got)


def start_of(start: Any, rows: Any, batch: tuple[int, ...]) -> Any:
    """A start for each row, of one that may be of a single row."""
    parts = jax.tree.leaves(start)
    alone = bool(parts) and getattr(parts[0], "ndim", 0) == 1
    lead = () if alone else batch
    like = lambda a: jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype)
    start = check_state(start, jax.tree.map(like, rows), "start")
    if not alone or not batch:
        return start
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (*batch, *a.shape)), start)


def check_widths(widths: Any, name: str) -> None:
    """Checks the widths of a state: one, or a NamedTuple of them, nested too."""
    if isinstance(widths, tuple) and hasattr(widths, "_fields"):
        for i, part in enumerate(widths):
            check_widths(part, f"{name}.{widths._fields[i]}")  # pyright: ignore
        first = widths[0] if widths else None
        ok = not isinstance(first, tuple) and first is not None
        check(ok, name, "a first field that is one width", type(first).__name__)
        return
    expected = "a width of at least 1, or a NamedTuple of widths"
    width: Any = widths
    ok = is_symbolic_dim(width) or (is_whole(width) and width >= 1)
    check_value(ok, name, expected, widths)


def zeros_like_widths(widths: Any, batch: Any, dtype: Any) -> Any:
    """A state of zeros, no two parts in one buffer."""
    check_widths(widths, "widths")
    batch = check_batch(batch)
    one = lambda F: jnp.zeros((*batch, F), state_dtype(dtype))
    return jax.tree.map(one, widths)
