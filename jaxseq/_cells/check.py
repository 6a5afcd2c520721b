"""Checks of the weights of the built-in cells."""

from typing import Any

import jax

from jaxseq._base.check import as_jax, check, check_array, check_dtype


def check_params(params: Any, kind: type, gates: int) -> Any:
    """Checks the weights of a cell with `gates` gates and returns them."""
    check(isinstance(params, kind), "params", kind.__name__, type(params).__name__)
    for name, w in params._asdict().items():
        ok = hasattr(w, "shape") or (w is None and name.startswith("b"))
        check(ok, f"params.{name}", "an array", type(w).__name__)
    params = jax.tree.map(as_jax, params)
    ranks = params.w_x.ndim, params.w_h.ndim
    check(ranks == (2, 2), "params", "w_x and w_h of rank 2", f"ranks {ranks}")
    D, H, dtype = params.w_x.shape[0], params.w_h.shape[0], params.w_x.dtype
    check_dtype(dtype, "params.w_x")
    Z = gates * H
    shapes = {"w_x": (D, Z), "w_h": (H, Z), "b": (Z,), "b_hn": (H,)}
    for name, w in params._asdict().items():
        if w is not None:
            check_array(w, f"params.{name}", shapes[name], dtype)
    return params
