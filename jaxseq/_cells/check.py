"""Checks of the weights of the built-in cells."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core

from jaxseq._base.check import (
    as_jax,
    check,
    check_array,
    check_dtype,
    check_number,
)


def check_params(params: Any, kind: type, gates: int) -> Any:
    """Checks the weights of a cell with `gates` gates and returns them."""
    check(isinstance(params, kind), "params", kind.__name__, type(params).__name__)
    for name, w in params._asdict().items():
        ok = hasattr(w, "shape") or (w is None and name.startswith("b"))
        check(ok, f"params.{name}", "an array", type(w).__name__)
    params = jax.tree.map(as_jax, params)
    ranks = params.w_x.ndim, params.w_h.ndim
    known = ((2, 2), (3, 3)) if gates > 1 else ((2, 2),)
    expected = "w_x and w_h of rank 2" + (", or both of rank 3" if gates > 1 else "")
    check(ranks in known, "params", expected, f"ranks {ranks}")
    D, H, dtype = params.w_x.shape[0], params.w_h.shape[0], params.w_x.dtype
    check_dtype(dtype, "params.w_x")
    Z = (gates * H,) if ranks == (2, 2) else (gates, H)
    shapes = {"w_x": (D, *Z), "w_h": (H, *Z), "b": Z, "b_h": Z, "b_hn": (H,)}
    for name, w in params._asdict().items():
        if w is None:
            continue
        if name == "b_hn":
            expected = f"shape ({H},) or {Z}"
            check(w.shape in ((H,), Z), "params.b_hn", expected, w.shape)
            shapes[name] = w.shape
        check_array(w, f"params.{name}", shapes[name], dtype)
    return params


def check_row(a: Any, name: str, *widths: int) -> None:
    """Checks what an update adds to a row, where another shape would broadcast."""
    expected = "shape " + " or ".join(f"({n},)" for n in widths)
    check(a.shape in [(n,) for n in widths], name, expected, a.shape)


def known_number(
    number: Any, name: str, expected: str, inside: Callable[[Any], Any]
) -> float:
    """Checks a number that is a part of an update, which is compiled for it."""
    traced = isinstance(number, jax.core.Tracer)
    check(not traced, name, f"{expected} that is known", "one that is traced")
    check_number(number, name, expected, inside)
    return float(number)
