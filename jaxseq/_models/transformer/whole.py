"""Encoder and decoder over whole sequences."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from jaxseq._attention.heads import attend_heads, heads_of
from jaxseq._attention.masks import near
from jaxseq._base.check import (
    check,
    check_callable,
    check_lengths,
    check_tokens,
    of_values,
)
from jaxseq._base.dropout import check_dropout, drop
from jaxseq._base.mesh import as_one_batch, rows
from jaxseq._models.memory import Memory
from jaxseq._models.transformer.cache import (
    Cache,
    cached,
    check_memory,
    memory_caches,
)
from jaxseq._models.transformer.checks import check_params
from jaxseq._models.transformer.layer import (
    Activation,
    Pass,
    keep,
    logits_of,
    run_layers,
)
from jaxseq._models.transformer.params import (
    TransformerParams,
    TransformerStack,
    decoder_of,
    embed_of,
    encoder_of,
)
from jaxseq._models.transformer.positions import check_positions, positioned, rotated
from jaxseq._models.transformer.state import TransformerState, check_room, state_of


def transformer_encode(
    params: TransformerParams,
    source: ArrayLike,
    *,
    source_lengths: ArrayLike | None = None,
    activation: Activation = jax.nn.relu,
    dropout: ArrayLike = 0.0,
    key: Array | None = None,
) -> Memory:
    """Runs the encoder.

    Args:
        params: weights with an encoder.
        source: tokens, from 0 to the size of the vocabulary less 1, `(..., S)`; past
            `source_lengths` they may be anything. Under `jit`, a token out of range
            has an embedding of NaN.
        source_lengths: valid tokens of each sequence, `(...)`; all S if None.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `Memory`, as the decoder takes it: `memory.values` has a vector for each token,
        `(..., S, D)`, zeros past `source_lengths`; `memory.valid` tells which tokens
        are valid, `(..., S)`, None if all.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.transformer_init(
        ...     jax.random.key(0), features=16, num_heads=2, ff_features=32,
        ...     source_vocab=90, num_encoder_layers=2,
        ... )
        >>> source, lengths = jnp.ones((2, 7), int), jnp.array([7, 3])
        >>> memory = jaxseq.transformer_encode(params, source, source_lengths=lengths)
        >>> memory.values.shape
        (2, 7, 16)
    """
    params = check_params(params)
    stack = encoder_of(params)
    check_callable(activation, "activation")
    check_dropout(dropout, key)
    embed = embed_of(params, "encoder")
    lengths = "source_lengths", source_lengths
    x, valid = _embedded(params, embed, source, "source", *lengths)
    seen = None
    if valid is not None:
        seen = jnp.broadcast_to(valid[..., None, :], (*x.shape[:-1], x.shape[-2]))
    common = Pass(stack.layout, activation)
    x, _, _ = _run(params, stack, x, seen, None, common, dropout, key)
    if valid is not None:
        x = jnp.where(valid[..., None], x, 0)
    return Memory(x, None, valid)


def transformer_decode(
    params: TransformerParams,
    memory: Memory | None,
    inputs: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    room: int | None = None,
    window: int | None = None,
    activation: Activation = jax.nn.relu,
    dropout: ArrayLike = 0.0,
    key: Array | None = None,
) -> tuple[TransformerState, Array, tuple[Array, ...] | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights with a decoder.
        memory: what `transformer_encode` returns; None with no encoder.
        inputs: tokens of each step, from 0 to V - 1, `(..., T)`: a start token, then
            the target. Under `jit`, a token out of range has an embedding of NaN.
        lengths: number of tokens in each sequence, after which the returned state
            continues, `(...)`; all T if None. Past them `inputs` may be anything.
        room: number of tokens that the caches of the returned state can hold; T if
            None. Generating `max_length` tokens after these takes T + max_length.
        window: each token attends to the last `window` tokens, including itself; to
            all before it if None. The caches then keep only these, as those of
            `transformer_zeros(window=)` do; no `room` is given.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, logits, weights)`: the state from which `transformer_decode_step`
        continues; logits of the token after each input, `(..., T, V)`, zeros past
        `lengths`; and for each layer the weights of its attention to the memory,
        `(..., N, T, S)`, None with no encoder.

    Raises:
        ValueError: if a shape, dtype or value does not fit.

    Example:
        >>> params = jaxseq.transformer_init(
        ...     jax.random.key(0), features=16, num_heads=2, ff_features=32,
        ...     target_vocab=90, num_decoder_layers=2,
        ... )
        >>> inputs = jnp.ones((2, 5), int)
        >>> state, logits, _ = jaxseq.transformer_decode(params, None, inputs, room=20)
        >>> logits.shape, state.left
        ((2, 5, 90), 15)
    """
    params = check_params(params)
    stack, memory = decoder_of(params), check_memory(params, memory)
    check_callable(activation, "activation")
    check_dropout(dropout, key)
    embed = embed_of(params, "decoder")
    x, inside = _embedded(params, embed, inputs, "inputs", "lengths", lengths)
    *batch, T, _ = x.shape
    if memory is not None:
        expected = (*memory.values.shape[:-2], T)
        check((*batch, T) == expected, "inputs", f"shape {expected}", (*batch, T))
    kept = None
    if room is not None or window is not None:
        kept = check_room(params, room, window)
    if room is not None:
        ok = is_symbolic_dim(room) or is_symbolic_dim(T) or room >= T
        check(ok, "room", f"at least {T}, as many as inputs", room)
    cross = memory_caches(params, memory)
    valid = None if memory is None else memory.valid
    seen = jnp.broadcast_to(near(T, T, True, window), (*x.shape[:-1], T))
    common = Pass(stack.layout, activation, valid)
    x, weights, caches = _run(params, stack, x, seen, cross, common, dropout, key)
    logits = logits_of(params, x)
    position = jnp.full(tuple(batch), T, jnp.int32)  # pyright: ignore
    if inside is not None:
        position = inside.sum(-1, dtype=jnp.int32)
        logits = jnp.where(inside[..., None], logits, 0)
    if kept is not None:
        kind, L = kept
        n, caches = as_one_batch((position, caches), position.ndim)
        caches = tuple(kind(*(cached(a, n, L) for a in c)) for c in caches)
    state = state_of(position, caches, cross, memory)
    return state, logits, None if memory is None else weights


def _run(
    params: TransformerParams,
    stack: TransformerStack,
    x: Array,
    seen: Array | None,
    cross: tuple[Cache, ...] | None,
    common: Pass,
    dropout: Any,
    key: Array | None,
) -> tuple[Array, tuple[Any, ...], tuple[Cache, ...]]:
    """Outputs, weights, keys and values of all layers; `seen` is (..., T, S)."""
    dropped, caches = keep, []
    if key is not None:
        keys = iter(jax.random.split(key, 3 * len(stack.layers) + 1))
        dropped = lambda x: drop(x, dropout, next(keys))
    at = jnp.arange(x.shape[-2], dtype=jnp.int32)
    rotate = lambda a: rotated(params.positions, a, at)

    def attend(i: int, x: Array) -> Array:
        heads = stack.layers[i].attention
        k, v = heads_of(heads, x, x)
        cache = Cache(rotate(k), v)
        caches.append(cache)
        return attend_heads(heads, x, *cache, seen, rotate=rotate)[0]

    x = dropped(x)
    x, weights = run_layers(stack, x, attend, cross, common._replace(dropped=dropped))
    return x, weights, tuple(caches)


def _embedded(
    params: TransformerParams,
    embed: Array,
    tokens: Any,
    name: str,
    lengths_name: str,
    lengths: Any,
) -> tuple[Array, Array | None]:
    """Embedded tokens (..., T, D), and which are valid (..., T) if not all."""
    shape = of_values(tokens, name).shape
    check(len(shape) >= 1, name, "shape (..., T)", shape)
    *batch, T = shape
    check_positions(params.positions, T, name)
    at, valid = jnp.arange(T, dtype=jnp.int32), None
    if lengths is not None:
        lengths = check_lengths(lengths, tuple(batch), T, name=lengths_name)
        valid = at < lengths[..., None]
    tokens = check_tokens(tokens, name, len(embed), valid)
    return positioned(params.positions, rows(embed, tokens), at), valid
