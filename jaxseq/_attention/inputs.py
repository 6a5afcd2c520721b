"""Checks of what attention is given."""

from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import AdditiveParams, MultiHeadParams
from jaxseq._base.check import (
    as_array,
    as_jax,
    check,
    check_array,
    check_choice,
    check_dtype,
    check_number,
)

IMPLEMENTATIONS = (None, "xla", "cudnn")
Params = TypeVar("Params", AdditiveParams, MultiHeadParams)


def check_implementation(implementation: Any, dtype: Any, same: bool = True) -> None:
    """Checks it for a dtype, and whether values are as wide as the keys."""
    name, got = "implementation", repr(implementation)
    check_choice(implementation, name, IMPLEMENTATIONS)
    if implementation is not None:
        check(dtype != jnp.float64, name, "None for float64", got)
        check(same, name, "None for values of another width than the keys", got)


def check_scale(scale: Any, implementation: str | None) -> None:
    if scale is None:
        return
    check_number(scale, "scale", "a finite number", lambda a: abs(a) < jnp.inf)
    ok = implementation != "cudnn" or not isinstance(scale, jax.core.Tracer)
    check(ok, "scale", "a number that is not traced, for 'cudnn'", scale)


def check_arrays(query: Any, keys: Any, values: Any) -> tuple[Array, Array, Array]:
    """Checks queries, keys and values, which are the keys if None; returns them."""
    query, keys = as_array(query, "query"), as_array(keys, "keys")
    values = keys if values is None else as_array(values, "values")
    check_dtype(query.dtype, "query")
    check(query.ndim >= 2, "query", "shape (..., T, Q)", query.shape)
    batch = query.shape[:-2]
    S = keys.shape[-2] if keys.ndim >= 2 else "S"
    for a, name in ((keys, "keys"), (values, "values")):
        expected = f"shape ({', '.join(map(str, (*batch, S)))}, {name[0].upper()})"
        check(a.shape[:-1] == (*batch, S), name, expected, a.shape)
        check(a.dtype == query.dtype, name, f"dtype {query.dtype}", a.dtype)
    return query, keys, values


def as_params(params: Any, kind: type[Params]) -> Params:
    """Checks that these are weights of the kind, of arrays, and returns them."""
    check(isinstance(params, kind), "params", kind.__name__, type(params).__name__)
    for name, w in params._asdict().items():
        ok = hasattr(w, "shape") or (w is None and name.startswith("b_"))
        check(ok, f"params.{name}", "an array", type(w).__name__)
    return jax.tree.map(as_jax, params)


def check_additive(params: AdditiveParams, query: Array, keys: Array) -> None:
    check(params.v.ndim == 1, "params.v", "shape (A,)", params.v.shape)
    (A,) = params.v.shape
    check_array(params.w_q, "params.w_q", (query.shape[-1], A), query.dtype)
    check_array(params.w_k, "params.w_k", (keys.shape[-1], A), query.dtype)
    check_array(params.v, "params.v", (A,), query.dtype)


def check_heads(
    params: MultiHeadParams, query: Array, keys: Array, values: Array
) -> None:
    for name in ("w_q", "w_k", "w_o"):
        w = getattr(params, name)
        check(w.ndim == 3, f"params.{name}", "rank 3", w.shape)
    (_, N, A), M, O = params.w_q.shape, params.w_k.shape[1], params.w_o.shape[-1]
    ok = 1 <= M <= N and N % M == 0
    check(ok, "params.w_k", f"a number of heads that divides {N}, that of w_q", M)
    shapes = {
        "w_q": (query.shape[-1], N, A),
        "w_k": (keys.shape[-1], M, A),
        "w_v": (values.shape[-1], M, A),
        "w_o": (N, A, O),
        "b_q": (N, A),
        "b_k": (M, A),
        "b_v": (M, A),
        "b_o": (O,),
    }
    for name, w in params._asdict().items():
        if w is not None:
            check_array(w, f"params.{name}", shapes[name], query.dtype)
