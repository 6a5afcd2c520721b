"""Transformer: encoder, decoder, or both, from tokens to vectors or logits.

A sub-layer f is either x + f(norm(x)) (pre-norm, with one norm more at the end) or
norm(x + f(x)) (post-norm, as published). f is attention to the sequence itself, in
the decoder of a pair also attention to the encoder's outputs, and
activation(x W_1 + b_1) W_2 + b_2. Embeddings and learned positions enter times
sqrt(D); logits are read with the transposed embeddings if there are no other weights
for it.

Vaswani and others, "Attention Is All You Need", 2017,
https://arxiv.org/abs/1706.03762; for pre-norm Xiong and others, "On Layer
Normalization in the Transformer Architecture", 2020,
https://arxiv.org/abs/2002.04745.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention import (
    MultiHeadParams,
    attend_heads,
    heads_of,
    multi_head_init,
)
from jaxseq._cell import state_dtype
from jaxseq._check import (
    check,
    check_array,
    check_dtype,
    check_lengths,
    check_sizes,
    check_tokens,
    extremes,
)
from jaxseq._layers import check_dropout, drop
from jaxseq._positions import (
    POSITIONS,
    Positions,
    Rotary,
    Sinusoidal,
    check_positions,
    positioned,
    rotated,
)

Activation = Callable[[Array], Array]


class NormParams(NamedTuple):
    """Layer normalisation, of Ba, Kiros and Hinton, 2016."""

    scale: Array  # (D,)
    b: Array  # (D,)


class TransformerLayer(NamedTuple):
    """Weights of one layer; of an encoder, or with no encoder, `cross` is None."""

    attention: MultiHeadParams
    attention_norm: NormParams
    cross: MultiHeadParams | None
    cross_norm: NormParams | None
    w_1: Array  # (D, F)
    b_1: Array  # (F,)
    w_2: Array  # (F, D)
    b_2: Array  # (D,)
    norm: NormParams  # of the two maps


class TransformerStack(NamedTuple):
    """An encoder or a decoder."""

    embed: Array | None  # (vocabulary, D); that of the encoder if None
    layers: tuple[TransformerLayer, ...]
    norm: NormParams | None  # at the end; with one the layers are pre-norm


class TransformerParams(NamedTuple):
    """Weights of a Transformer of width D."""

    encoder: TransformerStack | None
    decoder: TransformerStack | None
    positions: Positions
    w_o: Array | None = None  # (D, vocabulary); the embeddings, transposed, if None


class Cache(NamedTuple):
    """Keys and values by head, `(..., L, N, A)`."""

    k: Array
    v: Array


class TransformerState(NamedTuple):
    """State of the decoder; every leaf starts with the batch."""

    position: Array  # (...), of the next token
    caches: tuple[Cache, ...]  # of each layer, of the tokens so far
    cross: tuple[Cache, ...] | None  # of each layer, of the encoder's outputs
    valid: Array | None  # (..., S), which of these are


def transformer_init(
    key: Array,
    D: int,
    N: int,
    F: int,
    *,
    source: int | None = None,
    target: int | None = None,
    encoder_layers: int = 0,
    decoder_layers: int = 0,
    positions: str = "sinusoidal",
    most_positions: int | None = None,
    pre_norm: bool = True,
    tied: bool = True,
    dtype: Any = jnp.float32,
) -> TransformerParams:
    """Draws the weights of a Transformer of width `D`.

    Args:
        key: random key.
        D: width of the model.
        N: number of heads, each of width D / N.
        F: width between the two maps of a layer.
        source: tokens in the encoder's vocabulary.
        target: tokens in the decoder's; if None, where there is an encoder, the two
            share one vocabulary and its embeddings.
        encoder_layers: layers of the encoder; 0 for none (a language model).
        decoder_layers: layers of the decoder; 0 for none.
        positions: "sinusoidal"; "learned"; or "rotary", in the attention of a
            sequence to itself.
        most_positions: how many positions are learned; longer sequences are refused.
        pre_norm: whether norms stand before the sub-layers, or after them.
        tied: whether logits are read with the decoder's embeddings.
        dtype: of the weights.

    Returns:
        `TransformerParams`: embeddings and learned positions normal with deviation
        `D ** -0.5`, other weights Glorot uniform, biases zero, scales one.

    Raises:
        ValueError: if a size is not positive or an option does not fit.
    """
    check_sizes(D=D, N=N, F=F)
    check_dtype(dtype, "dtype")
    check(D % N == 0, "N", f"a divisor of D = {D}", N)
    even = positions == "learned" or (D // N if positions == "rotary" else D) % 2 == 0
    check(positions in POSITIONS, "positions", f"one of {POSITIONS}", repr(positions))
    check(even, "D", f"an even width for {positions} positions", D)
    for name, n in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        ok = hasattr(n, "__index__") and n >= 0
        check(ok, f"{name}_layers", "a number of layers, 0 or more", n)
    some = encoder_layers + decoder_layers > 0
    check(some, "encoder_layers", "a layer in encoder or decoder", "none in both")
    if encoder_layers:
        check_sizes(source=source)
    if decoder_layers and (target is not None or not encoder_layers):
        check_sizes(target=target)
    keys = iter(jax.random.split(key, encoder_layers + decoder_layers + 4))
    embeddings = jax.nn.initializers.normal(D**-0.5)
    glorot = jax.nn.initializers.glorot_uniform()
    norm = lambda: NormParams(jnp.ones(D, dtype), jnp.zeros(D, dtype))

    def layer(key: Array, with_cross: bool) -> TransformerLayer:
        k_self, k_cross, k_1, k_2 = jax.random.split(key, 4)
        heads = lambda key: multi_head_init(key, D, N, D // N, dtype=dtype)
        return TransformerLayer(
            attention=heads(k_self),
            attention_norm=norm(),
            cross=heads(k_cross) if with_cross else None,
            cross_norm=norm() if with_cross else None,
            w_1=glorot(k_1, (D, F), dtype),
            b_1=jnp.zeros(F, dtype),
            w_2=glorot(k_2, (F, D), dtype),
            b_2=jnp.zeros(D, dtype),
            norm=norm(),
        )

    def stack(vocabulary: int | None, n: int, with_cross: bool) -> Any:
        if n == 0:
            return None
        key = next(keys)
        embed = None if vocabulary is None else embeddings(key, (vocabulary, D), dtype)
        layers = tuple(layer(next(keys), with_cross) for _ in range(n))
        return TransformerStack(embed, layers, norm() if pre_norm else None)

    encoder = stack(source, encoder_layers, False)
    decoder = stack(target, decoder_layers, encoder_layers > 0)
    where: Any = {"sinusoidal": Sinusoidal(), "rotary": Rotary()}.get(positions)
    if where is None:
        check_sizes(most_positions=most_positions)
        where = embeddings(next(keys), (most_positions, D), dtype)
    w_o = None
    if decoder is not None and not tied:
        w_o = glorot(next(keys), (D, source if target is None else target), dtype)
    return TransformerParams(encoder, decoder, where, w_o)


def transformer_encode(
    params: TransformerParams,
    tokens: Array,
    *,
    lengths: Array | None = None,
    activation: Activation = jax.nn.relu,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Array:
    """Runs the encoder.

    Args:
        params: weights with an encoder.
        tokens: `(..., S)`; past `lengths` they may be anything.
        lengths: valid tokens of each sequence, `(...)`; all S if None.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        A vector for each token, `(..., S, D)`; zeros past `lengths`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = _check_params(params)
    stack = params.encoder
    check(stack is not None, "params", "weights with an encoder", "none")
    assert stack is not None
    check_dropout(dropout, key)
    x, valid = _start(params, _embed(params, "encoder"), tokens, lengths)
    x, _ = _run(params, stack, x, valid, None, None, activation, dropout, key)
    return x if valid is None else jnp.where(valid[..., None], x, 0)


def transformer_decode(
    params: TransformerParams,
    tokens: Array,
    memory: Array | None = None,
    *,
    memory_lengths: Array | None = None,
    activation: Activation = jax.nn.relu,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, tuple[Array, ...] | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights with a decoder.
        tokens: `(..., T)`; each is followed by what its logits are of.
        memory: outputs of the encoder, `(..., S, D)`; None with no encoder.
        memory_lengths: valid tokens of each source, `(...)`; all S if None.
        activation: between the two maps of a layer.
        dropout: probability in [0, 1) that a value of the embeddings or of a
            sub-layer's output is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(logits, weights)`: logits of the token after each, `(..., T, V)`, and of
        each layer the weights of its attention to the memory, `(..., N, T, S)`;
        None with no encoder.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = _check_params(params)
    stack = _decoder(params)
    check_dropout(dropout, key)
    x, _ = _start(params, _embed(params, "decoder"), tokens, None)
    cross, valid = _cross(params, memory, memory_lengths, x.shape[:-2])
    T = x.shape[-2]
    before = jnp.tril(jnp.ones((T, T), jnp.bool_))
    before = jnp.broadcast_to(before, (*x.shape[:-1], T))
    x, weights = _run(params, stack, x, before, cross, valid, activation, dropout, key)
    return _logits(params, x), weights if cross is not None else None


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
    params = _check_params(params)
    stack = _decoder(params)
    check_sizes(max_length=max_length)
    check_positions(params.positions, max_length, "max_length")
    if memory is not None:
        expected = jnp.shape(memory)[:-2]
        ok = tuple(batch) in ((), expected)
        check(ok, "batch", f"{expected}, that of the memory", batch)
        batch = expected
    cross, valid = _cross(params, memory, memory_lengths, batch)
    _, N, A = stack.layers[0].attention.w_k.shape
    shape, dtype = (*batch, max_length, N, A), stack.layers[0].w_1.dtype
    empty = lambda: jnp.zeros(shape, dtype)  # each an array of its own, to be donated
    caches = tuple(Cache(empty(), empty()) for _ in stack.layers)
    return TransformerState(jnp.zeros(batch, jnp.int32), caches, cross, valid)


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
        token: the token before, or a start token, `(...)`.
        activation: between the two maps of a layer.

    Returns:
        `(state, logits)`: the new state, and logits of the next token, `(..., V)`;
        NaN where the state has no more room, if only a run under `jit` knows it.

    Raises:
        ValueError: if a shape, dtype or value does not fit, or the state is known to
            have no more room.
    """
    params = _check_params(params)
    stack, embed = _decoder(params), _embed(params, "decoder")
    token = check_tokens(token, "token", len(embed))
    state, L = _check_state(stack, state)
    t = state.position
    check(token.shape == t.shape, "token", f"shape {t.shape}", token.shape)
    at = t[..., None]
    x = positioned(params.positions, embed[token][..., None, :], at)
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
        x, _ = _layer(layer, x, attend, cross, state.valid, activation, pre, _keep)
    state = state._replace(position=t + 1, caches=tuple(caches))
    x = x if stack.norm is None else _norm(stack.norm, x)
    # a token past the end is in no cache
    logits = jnp.where(at < L, _logits(params, x[..., 0, :]), jnp.nan)
    return state, logits


def _run(
    params: TransformerParams,
    stack: TransformerStack,
    x: Array,
    valid: Array | None,
    cross: tuple[Cache, ...] | None,
    cross_valid: Array | None,
    activation: Activation,
    dropout: float,
    key: Array | None,
) -> tuple[Array, tuple[Array, ...]]:
    """All layers over whole sequences; `valid` is (..., S) or (..., T, S)."""
    dropped = _keep
    if key is not None:
        keys = iter(jax.random.split(key, 3 * len(stack.layers) + 1))
        dropped = lambda x: drop(x, dropout, next(keys))
    x, weights = dropped(x), []
    if valid is not None and valid.ndim < x.ndim:
        shape = (*x.shape[:-1], x.shape[-2])
        valid = jnp.broadcast_to(valid[..., None, :], shape)
    at = jnp.arange(x.shape[-2], dtype=jnp.int32)
    rotate = lambda a: rotated(params.positions, a, at)

    def attend_self(layer: TransformerLayer, x: Array) -> Array:
        k, v = heads_of(layer.attention, x, x)
        heads = rotate(k), v
        return attend_heads(layer.attention, x, *heads, valid, rotate=rotate)[0]

    for i, layer in enumerate(stack.layers):
        attend = lambda x, layer=layer: attend_self(layer, x)
        memory = None if cross is None else cross[i]
        pre = stack.norm is not None
        x, w = _layer(layer, x, attend, memory, cross_valid, activation, pre, dropped)
        weights.append(w)
    return x if stack.norm is None else _norm(stack.norm, x), tuple(weights)


def _layer(
    layer: TransformerLayer,
    x: Array,
    attend: Activation,
    cross: Cache | None,
    cross_valid: Array | None,
    activation: Activation,
    pre: bool,
    dropped: Activation,
) -> tuple[Array, Array | None]:
    """One layer, and the weights of its attention to the encoder's outputs."""
    weights = []

    def sub(f: Activation, norm: NormParams, x: Array) -> Array:
        if pre:
            return x + dropped(f(_norm(norm, x)))
        return _norm(norm, x + dropped(f(x)))

    def attend_cross(x: Array) -> Array:
        assert layer.cross is not None and cross is not None
        valid = cross_valid
        if valid is not None:
            shape = (*x.shape[:-1], valid.shape[-1])
            valid = jnp.broadcast_to(valid[..., None, :], shape)
        context, w = attend_heads(layer.cross, x, *cross, valid)
        weights.append(w)
        return context

    x = sub(attend, layer.attention_norm, x)
    if layer.cross_norm is not None:
        x = sub(attend_cross, layer.cross_norm, x)
    maps = lambda x: activation(x @ layer.w_1 + layer.b_1) @ layer.w_2 + layer.b_2
    return sub(maps, layer.norm, x), weights[0] if weights else None


def _norm(params: NormParams, x: Array) -> Array:
    """Ba, Kiros and Hinton, 2016, https://arxiv.org/abs/1607.06450."""
    wide = x.astype(state_dtype(x.dtype))
    centred = wide - wide.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    unit = (centred * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)
    return unit * params.scale + params.b


def _start(
    params: TransformerParams, embed: Array, tokens: Any, lengths: Any
) -> tuple[Array, Array | None]:
    """Embedded tokens (..., T, D), and which are valid (..., T) if not all."""
    shape = jnp.shape(tokens)
    check(len(shape) >= 1, "tokens", "shape (..., T)", shape)
    *batch, T = shape
    check_positions(params.positions, T, "tokens")
    at, valid = jnp.arange(T, dtype=jnp.int32), None
    if lengths is not None:
        valid = at < check_lengths(lengths, tuple(batch), T)[..., None]
    tokens = check_tokens(tokens, "tokens", len(embed), valid)
    return positioned(params.positions, embed[tokens], at), valid


def _cross(
    params: TransformerParams, memory: Any, lengths: Any, batch: tuple[int, ...]
) -> tuple[tuple[Cache, ...] | None, Array | None]:
    """Keys and values of the encoder's outputs in each layer, and which are valid."""
    layers = _decoder(params).layers
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


def _logits(params: TransformerParams, x: Array) -> Array:
    return x @ (_embed(params, "decoder").T if params.w_o is None else params.w_o)


def _embed(params: TransformerParams, name: str) -> Array:
    stack, other = getattr(params, name), params.encoder
    embed = stack.embed if stack.embed is not None or other is None else other.embed
    check(embed is not None, "params", f"embeddings of the {name}", "None")
    assert embed is not None
    return embed


def _decoder(params: TransformerParams) -> TransformerStack:
    stack = params.decoder
    check(stack is not None, "params", "weights with a decoder", "none")
    assert stack is not None
    return stack


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


def _check_params(params: Any) -> TransformerParams:
    ok = isinstance(params, TransformerParams)
    check(ok, "params", "TransformerParams", type(params).__name__)
    return jax.tree.map(jnp.asarray, params)


def _keep(x: Array) -> Array:
    return x
