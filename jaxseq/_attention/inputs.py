"""Checks of what attention is given."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import MultiHeadParams
from jaxseq._base.check import as_array, check, check_array, check_dtype, check_lengths


def check_implementation(implementation: Any, dtype: Any, same: bool) -> None:
    known = (None, "xla", "cudnn")
    name, got, ok = "implementation", repr(implementation), implementation in known
    check(ok, name, f"one of {known}", got)
    if implementation is not None:
        check(dtype != jnp.float64, name, "None for float64", got)
        check(same, name, "None for values of another width than the keys", got)


def check_inputs(
    query: Any, keys: Any, values: Any, lengths: Any, mask: Any, causal: bool = False
) -> tuple[Array, Array, Array, Array | None]:
    """Checks them; returns arrays, and which keys are valid (..., T, S) if not all."""
    values = keys if values is None else values
    arrays = [
        as_array(a, name)
        for a, name in ((query, "query"), (keys, "keys"), (values, "values"))
    ]
    query, keys, values = arrays
    check_dtype(query.dtype, "query")
    check(query.ndim >= 2, "query", "shape (..., T, Q)", query.shape)
    batch, T = query.shape[:-2], query.shape[-2]
    S = keys.shape[-2] if keys.ndim >= 2 else 0
    for a, name in ((keys, "keys"), (values, "values")):
        expected = f"shape ({', '.join(map(str, (*batch, S)))}, {name[0].upper()})"
        check(a.shape[:-1] == (*batch, S), name, expected, a.shape)
        check(a.dtype == query.dtype, name, f"dtype {query.dtype}", a.dtype)
    valid = None
    if lengths is not None:
        ends = check_lengths(lengths, batch, S)[..., None]
        inside = jnp.arange(S, dtype=jnp.int32) < ends
        keys, values = (jnp.where(inside[..., None], a, 0) for a in (keys, values))
        valid = jnp.broadcast_to(inside[..., None, :], (*batch, T, S))
    if mask is not None:
        mask = jnp.asarray(mask)
        check_array(mask, "mask", (*batch, T, S), jnp.bool_)
        valid = mask if valid is None else valid & mask
    if causal:
        before = jnp.tril(jnp.ones((T, S), jnp.bool_))
        every = jnp.broadcast_to(before, (*batch, T, S))
        valid = every if valid is None else valid & every
    return query, keys, values, valid


def check_heads(params: MultiHeadParams, query: Any, keys: Any, values: Any) -> None:
    ok = params.w_q.ndim == 3 and params.w_o.ndim == 3
    ranks = params.w_q.ndim, params.w_o.ndim
    check(ok, "params", "w_q and w_o of rank 3", f"ranks {ranks}")
    (_, N, A), O = params.w_q.shape, params.w_o.shape[-1]
    shapes = {
        "w_q": (query.shape[-1], N, A),
        "w_k": (keys.shape[-1], N, A),
        "w_v": (values.shape[-1], N, A),
        "w_o": (N, A, O),
        **dict.fromkeys(("b_q", "b_k", "b_v"), (N, A)),
        "b_o": (O,),
    }
    for name, w in params._asdict().items():
        if w is not None:
            check_array(w, f"params.{name}", shapes[name], query.dtype)
