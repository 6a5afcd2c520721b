"""Keys and values that are kept, of the encoder's outputs and of tokens so far."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import heads_of
from jaxseq._base.check import check, check_array, check_lengths
from jaxseq._models.transformer.params import TransformerParams, decoder_of


class Cache(NamedTuple):
    """Keys and values by head, `(..., L, N, A)`."""

    k: Array
    v: Array


def memory_caches(
    params: TransformerParams, memory: Any, lengths: Any, batch: tuple[int, ...]
) -> tuple[tuple[Cache, ...] | None, Array | None]:
    """Keys and values of the encoder's outputs in each layer, and which are valid."""
    layers = decoder_of(params).layers
    expects = layers[0].cross is not None
    text = "the encoder's outputs" if expects else "None with no encoder"
    got = "None" if memory is None else "an array"
    check((memory is not None) == expects, "memory", text, got)
    if memory is None:
        check(lengths is None, "memory_lengths", "None with no memory", "an array")
        return None, None
    memory = jnp.asarray(memory)
    S = memory.shape[-2] if memory.ndim >= 2 else 0
    w = layers[0].w_1
    check_array(memory, "memory", (*batch, S, w.shape[0]), w.dtype)
    valid = None
    if lengths is not None:
        ends = check_lengths(lengths, batch, S, name="memory_lengths")[..., None]
        valid = jnp.arange(S, dtype=jnp.int32) < ends
        memory = jnp.where(valid[..., None], memory, 0)
    made = (heads_of(x.cross, memory, memory) for x in layers if x.cross is not None)
    return tuple(Cache(*heads) for heads in made), valid
