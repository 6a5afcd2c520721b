"""The decoder one token at a time, with what it keeps of those before."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._base.buffers import apart
from jaxseq._base.check import check, check_sizes, check_tokens, extremes
from jaxseq._base.mesh import as_one_batch, rows
from jaxseq._models.transformer.cache import Cache, memory_caches
from jaxseq._models.transformer.layer import (
    Activation,
    keep,
    logits_of,
    normed,
    run_layer,
)
from jaxseq._models.transformer.params import (
    TransformerLayer,
    TransformerParams,
    TransformerStack,
    check_params,
    decoder_of,
    embed_of,
)
from jaxseq._models.transformer.positions import check_positions, positioned, rotated


class TransformerState(NamedTuple):
    """State of the decoder; every leaf starts with the batch."""

    position: Array  # (...), of the next token
    caches: tuple[Cache, ...]  # of each layer, of the tokens so far
    cross: tuple[Cache, ...] | None  # of each layer, of the encoder's outputs
    valid: Array | None  # (..., S), which of these are


def transformer_zeros(
    params: TransformerParams,
    memory: Array | None = None,
    *,
    memory_lengths: Array | None = None,
    batch: tuple[int, ...] = (),
    max_length: int,
) -> TransformerState:
    """Returns the decoder's state before its first token.

    Args:
        params: weights with a decoder.
        memory: outputs of the encoder, `(..., S, D)`; None with no encoder.
        memory_lengths: valid tokens of each source, `(...)`; all S if None.
        batch: batch dimensions; those of the memory with an encoder.
        max_length: most tokens that the state has room for, prompt included.

    Returns:
        `TransformerState`, with the keys and values of the memory.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = check_params(params)
    stack = decoder_of(params)
    check_sizes(max_length=max_length)
    check_positions(params.positions, max_length, "max_length")
    if memory is not None:
        expected = jnp.shape(memory)[:-2]
        ok = tuple(batch) in ((), expected)
        check(ok, "batch", f"{expected}, that of the memory", batch)
        batch = expected
    cross, valid = memory_caches(params, memory, memory_lengths, batch)
    _, N, A = stack.layers[0].attention.w_k.shape
    shape, dtype = (*batch, max_length, N, A), stack.layers[0].w_1.dtype
    empty = lambda: jnp.zeros(shape, dtype)  # each an array of its own, to be donated
    caches = tuple(Cache(empty(), empty()) for _ in stack.layers)
    state = TransformerState(jnp.zeros(batch, jnp.int32), caches, cross, valid)
    return as_one_batch(state, len(batch))


def transformer_decode_step(
    params: TransformerParams,
    state: TransformerState,
    token: Array,
    *,
    activation: Activation = jax.nn.relu,
) -> tuple[TransformerState, Array]:
    """Does one step of the decoder, as `partial(transformer_decode_step, params)`.

    Args:
        params: weights with a decoder.
        state: the decoder's state.
        token: the token before, or a start token, from 0 to V - 1, `(...)`. Another,
            where only a run under `jit` knows it, has an embedding of NaN.
        activation: between the two maps of a layer.

    Returns:
        `(state, logits)`: the new state, and logits of the next token, `(..., V)`;
        NaN where the state has no more room, if only a run under `jit` knows it.

    Raises:
        ValueError: if a shape, dtype or value does not fit, or the state is known to
            have no more room.
    """
    params = check_params(params)
    stack, embed = decoder_of(params), embed_of(params, "decoder")
    token = check_tokens(token, "token", len(embed))
    state, L = _check_state(stack, state)
    t = state.position
    check(token.shape == t.shape, "token", f"shape {t.shape}", token.shape)
    at = t[..., None]
    x = positioned(params.positions, rows(embed, token)[..., None, :], at)
    times = jnp.arange(L, dtype=jnp.int32)
    here = (times == at)[..., None, None]
    before = (times <= at)[..., None, :]  # one query
    caches = []

    def attend_self(layer: TransformerLayer, cache: Cache, x: Array) -> Any:
        k, v = heads_of(layer.attention, x, x)
        k = rotated(params.positions, k, at)
        update = lambda new, old: jnp.where(here, new, old)
        cache = jax.tree.map(update, Cache(k, v), cache)
        caches.append(cache)
        rotate = lambda q: rotated(params.positions, q, at)
        return attend_heads(layer.attention, x, *cache, before, rotate=rotate)[0]

    for i, layer in enumerate(stack.layers):
        attend = lambda x, layer=layer, i=i: attend_self(layer, state.caches[i], x)
        cross = None if state.cross is None else state.cross[i]
        pre = stack.norm is not None
        x, _ = run_layer(layer, x, attend, cross, state.valid, activation, pre, keep)
    cross, valid = apart((state.cross, state.valid))
    state = TransformerState(t + 1, tuple(caches), cross, valid)
    x = x if stack.norm is None else normed(stack.norm, x)
    # a token past the end is in no cache
    logits = jnp.where(at < L, logits_of(params, x[..., 0, :]), jnp.nan)
    return state, logits


def _check_state(stack: TransformerStack, state: Any) -> tuple[TransformerState, int]:
    """The state, and how many tokens it has room for."""
    ok = isinstance(state, TransformerState)
    check(ok, "state", "TransformerState", type(state).__name__)
    n, got = len(stack.layers), len(state.caches)
    check(got == n, "state", f"caches of {n} layers", got)
    expects, has = stack.layers[0].cross is not None, state.cross is not None
    text, got = (f"{'a' if x else 'no'} memory" for x in (expects, has))
    check(has == expects, "state", text, got)
    L = state.caches[0].k.shape[-3]
    for t in extremes(state.position):
        check(t < L, "state", f"a position below max_length = {L}", t)
    return jax.tree.map(jnp.asarray, state), L
