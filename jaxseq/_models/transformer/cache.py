"""Caches of keys and values: of the encoder's outputs and of the tokens so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import heads_of
from jaxseq._base.check import as_array, check
from jaxseq._models.check import as_arrays, check_kind, check_tree
from jaxseq._models.memory import Memory
from jaxseq._models.transformer.params import TransformerParams, decoder_of


class Cache(NamedTuple):
    """Keys and values of at most L positions; those of position t are at index t.

    Fields:
        k: keys by head, `(..., L, N, A)`.
        v: values by head, `(..., L, N, A)`.
    """

    k: Array
    v: Array


class SlidingCache(NamedTuple):
    """Keys and values of the last L positions; those of t are at index t mod L.

    Fields:
        k: keys by head, `(..., L, N, A)`.
        v: values by head, `(..., L, N, A)`.
    """

    k: Array
    v: Array


def cached(a: Array, n: Array, L: Any) -> Array:
    """A cache of size L after n (...) of the keys or values (..., T, N, A)."""
    last, slots = n[..., None] - 1, jnp.arange(L, dtype=jnp.int32)
    at = last - (last - slots) % L  # the last position that belongs in each slot
    at = jnp.where(at < 0, a.shape[-3], at)[..., None, None]
    return jnp.take_along_axis(a, at, -3, mode="fill", fill_value=0)


def check_memory(params: TransformerParams, memory: Any) -> Memory | None:
    """Checks the memory that a decoder attends to, except for its batch."""
    layer = decoder_of(params).layers[0]
    if layer.cross is None:
        got = type(memory).__name__
        check(memory is None, "memory", "None with no encoder", got)
        return None
    check_kind(memory, "memory", Memory)
    memory = as_arrays(memory, "memory")
    values = as_array(memory.values, "memory.values")
    check(values.ndim >= 2, "memory.values", "shape (..., S, D)", values.shape)
    shape = (*values.shape[:-1], layer.w_1.shape[0])
    w: Any = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype)
    valid = None if memory.valid is None else w(shape[:-1], jnp.bool_)
    check_tree(memory, Memory(w(shape, layer.w_1.dtype), None, valid), "memory")
    return memory


def memory_caches(
    params: TransformerParams, memory: Memory | None
) -> tuple[Cache, ...] | None:
    """Keys and values of the encoder's outputs in each layer."""
    if memory is None:
        return None
    values = memory.values
    if memory.valid is not None:
        values = jnp.where(memory.valid[..., None], values, 0)
    layers = (x.cross for x in decoder_of(params).layers if x.cross is not None)
    return tuple(Cache(*heads_of(cross, values, values)) for cross in layers)
