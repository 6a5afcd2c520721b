"""Recurrent encoder-decoder, with or without attention, from tokens to logits.

The encoder's layers read the source, each in one direction or both. A bridge makes
the decoder's initial states of their final ones: for each layer W [finals] + b, of
which h goes through tanh. The decoder then reads, at each step, the token before:

    no attention   s_t = cell(e_t, s_{t-1});         logits_t = s_t W_o + b_o
    Bahdanau       c_t = attend(s_{t-1}, memory)
                   s_t = cell([e_t c_t], s_{t-1})
                   a_t = maxout([s_t c_t e_t] W + b); logits_t = a_t W_o + b_o
    Luong          s_t = cell([e_t a_{t-1}], s_{t-1})   a_{t-1} by input feeding only
                   c_t = attend(s_t, memory)
                   a_t = tanh([c_t s_t] W + b);       logits_t = a_t W_o + b_o

Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks",
2014, https://arxiv.org/abs/1409.3215; Bahdanau, Cho and Bengio, "Neural Machine
Translation by Jointly Learning to Align and Translate", 2015,
https://arxiv.org/abs/1409.0473, whose readout reads s_{t-1} where this one reads
s_t; Luong, Pham and Manning, "Effective Approaches to Attention-based Neural
Machine Translation", 2015, https://arxiv.org/abs/1508.04025.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxseq._attention import (
    Dot,
    ScaledDot,
    Score,
    additive_init,
    attend,
    multi_head_init,
    prepare,
)
from jaxseq._cell import hidden, state_dtype
from jaxseq._check import check, check_dtype, check_lengths, check_sizes, check_tokens
from jaxseq._gru import GRUParams, gru, gru_step, gru_zeros
from jaxseq._layers import bidirectional, check_dropout, drop, stack
from jaxseq._lstm import LSTMParams, lstm, lstm_init, lstm_step, lstm_zeros
from jaxseq._rnn import RNNParams, rnn, rnn_step, rnn_zeros

CELLS: dict[type, Any] = {  # sequence, step, zeros
    RNNParams: (rnn, rnn_step, rnn_zeros),
    LSTMParams: (lstm, lstm_step, lstm_zeros),
    GRUParams: (gru, gru_step, gru_zeros),
}
SCORES = ("additive", "general", "dot", "scaled_dot", "multi_head")


class BridgeParams(NamedTuple):
    """Of the encoder's final states, F wide, one decoder layer's of S parts."""

    w: Array  # (F, S H)
    b: Array  # (S H,)


class BahdanauParams(NamedTuple):
    """Attention before the cell, and the readout's layer of A units, by maxout."""

    score: Score
    w: Array  # (H + C + E, 2A)
    b: Array  # (2A,)


class LuongParams(NamedTuple):
    """Attention after the cell, and the A units that its context goes into."""

    score: Score
    w: Array  # (C + H, A)
    b: Array  # (A,)


class Seq2SeqParams(NamedTuple):
    """Weights of a recurrent encoder-decoder.

    The cells of an encoder layer are those of each direction. The first decoder
    layer reads E inputs, and with Bahdanau's attention C more, with input feeding A
    more; C is the width of the encoder's outputs.
    """

    source: Array  # (source vocabulary, E), embeddings
    target: Array | None  # (target vocabulary, E); those of the source if None
    encoder: tuple[tuple[Any, ...], ...]
    bridge: tuple[BridgeParams, ...]  # of each decoder layer
    decoder: tuple[Any, ...]
    attention: BahdanauParams | LuongParams | None
    w_o: Array  # (A, target vocabulary), or (H, ...) with no attention
    b_o: Array  # (target vocabulary,)


class Memory(NamedTuple):
    """What the decoder attends to."""

    values: Array  # (..., S, C)
    keys: Any  # the part of the score that no query enters, or None
    valid: Array | None  # (..., S)


class Seq2SeqState(NamedTuple):
    """State of the decoder; every leaf starts with the batch."""

    layers: tuple[Any, ...]
    feed: Array | None  # a_{t-1} (..., A), with input feeding
    memory: Memory | None


def seq2seq_init(
    key: Array,
    source: int,
    target: int | None,
    E: int,
    H: int,
    *,
    cell: Callable[..., Any] = lstm_init,
    layers: int = 1,
    bidirectional: bool = True,
    attention: str | None = "bahdanau",
    score: str | None = None,
    feed: bool = False,
    A: int | None = None,
    heads: int = 4,
    dtype: Any = jnp.float32,
) -> Seq2SeqParams:
    """Draws the weights of a recurrent encoder-decoder.

    Args:
        key: random key.
        source: tokens in the source's vocabulary.
        target: tokens in the target's; if None, source and target share one
            vocabulary and its embeddings.
        E: width of the embeddings.
        H: hidden width of each cell, so the outputs of an encoder in both directions
            are C = 2H wide.
        cell: `lstm_init`, `gru_init` or `rnn_init`, for all layers.
        layers: layers of the encoder and of the decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: "bahdanau", before the cell; "luong", after it; or None.
        score: "additive", "general", "dot" (which needs C = H), "scaled_dot" (the
            same) or "multi_head"; if None, "additive" before the cell and "general"
            after it.
        feed: whether the attention's output enters the next step (Luong).
        A: width of the attention's output and of an additive score; `H` if None.
        heads: number of heads of "multi_head", each of width A / heads.
        dtype: of the weights.

    Returns:
        `Seq2SeqParams`: cells as of `cell`, embeddings standard normal, other weights
        Glorot uniform, biases zero.

    Raises:
        ValueError: if a size is not positive or an option does not fit.
    """
    A = H if A is None else A
    target_size = source if target is None else target
    sizes = {"E": E, "H": H, "A": A, "layers": layers, "heads": heads}
    check_sizes(source=source, target=target_size, **sizes)
    check_dtype(dtype, "dtype")
    kinds = ("bahdanau", "luong", None)
    check(attention in kinds, "attention", f"one of {kinds}", repr(attention))
    if score is None:
        score = "additive" if attention == "bahdanau" else "general"
    check(score in SCORES, "score", f"one of {SCORES}", repr(score))
    ok = not feed or attention == "luong"
    check(ok, "feed", 'False without attention "luong"', feed)
    keys = iter(jax.random.split(key, 6 + 4 * layers))
    glorot = jax.nn.initializers.glorot_uniform()
    embed = lambda size: jax.random.normal(next(keys), (size, E), dtype)

    directions = 2 if bidirectional else 1
    C = directions * H
    encoder = tuple(
        tuple(cell(next(keys), width, H, dtype=dtype) for _ in range(directions))
        for width in [E] + [C] * (layers - 1)
    )
    extra = C if attention == "bahdanau" else A if feed else 0
    widths = [E + extra] + [H] * (layers - 1)
    decoder = tuple(cell(next(keys), width, H, dtype=dtype) for width in widths)
    # a state of S parts becomes one of as many
    S = len(jax.tree.leaves(_zeros(decoder[0], ())))
    bridge = lambda: glorot(next(keys), (directions * S * H, S * H), dtype)
    bridges = tuple(
        BridgeParams(bridge(), jnp.zeros(S * H, dtype)) for _ in range(layers)
    )
    params = None
    if attention is not None:
        scored = _score_init(next(keys), score, H, C, A, heads, dtype)
        if attention == "bahdanau":
            w = glorot(next(keys), (H + C + E, 2 * A), dtype)
            params = BahdanauParams(scored, w, jnp.zeros(2 * A, dtype))
        else:
            w = glorot(next(keys), (C + H, A), dtype)
            params = LuongParams(scored, w, jnp.zeros(A, dtype))
    return Seq2SeqParams(
        source=embed(source),
        target=None if target is None else embed(target),
        encoder=encoder,
        bridge=bridges,
        decoder=decoder,
        attention=params,
        w_o=glorot(next(keys), (H if params is None else A, target_size), dtype),
        b_o=jnp.zeros(target_size, dtype),
    )


def _score_init(
    key: Array, score: str, H: int, C: int, A: int, heads: int, dtype: Any
) -> Score:
    if score == "additive":
        return additive_init(key, H, C, A, dtype=dtype)
    if score == "multi_head":
        check(A % heads == 0, "heads", f"a divisor of A = {A}", heads)
        sizes = {"K": C, "O": C, "dtype": dtype}
        return multi_head_init(key, H, heads, A // heads, **sizes)
    if score == "general":
        return jax.nn.initializers.glorot_uniform()(key, (H, C), dtype)
    check(C == H, "score", f'not "{score}", which needs C = H', f"C = {C}, H = {H}")
    return Dot() if score == "dot" else ScaledDot()


def seq2seq_encode(
    params: Seq2SeqParams,
    tokens: Array,
    *,
    lengths: Array | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Seq2SeqState:
    """Reads the source and returns the decoder's initial state.

    Args:
        params: weights.
        tokens: source, `(..., S)`; past `lengths` they may be anything.
        lengths: valid tokens of each source, `(...)`; all S if None.
        dropout: probability in [0, 1) that a value of the embeddings, between two
            layers or of the outputs is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `Seq2SeqState`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = _check_params(params)
    check_dropout(dropout, key)
    *batch, S = _shape(tokens, "S")
    valid = None
    if lengths is not None:
        lengths = check_lengths(lengths, tuple(batch), S)
        valid = jnp.arange(S, dtype=jnp.int32) < lengths[..., None]
    tokens = check_tokens(tokens, "tokens", len(params.source), valid)
    k_in, k_between, k_out = [None] * 3 if key is None else jax.random.split(key, 3)
    x = drop(params.source[tokens], dropout, k_in)
    layers = [_layer(cells) for cells in params.encoder]
    ends, y = stack(layers, x, lengths=lengths, dropout=dropout, key=k_between)
    states = []
    for i, (bridge, cell) in enumerate(zip(params.bridge, params.decoder, strict=True)):
        states.append(_bridge(bridge, ends[min(i, len(ends) - 1)], cell))
    attention, feed, memory = params.attention, None, None
    if attention is not None:
        y = drop(y, dropout, k_out)
        memory = Memory(y, prepare(attention.score, y), valid)
        if _feeds(params):
            feed = jnp.zeros((*batch, attention.w.shape[-1]), y.dtype)
    return Seq2SeqState(tuple(states), feed, memory)


def seq2seq_decode(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    tokens: Array,
    *,
    dropout: float = 0.0,
    key: Array | None = None,
) -> tuple[Seq2SeqState, Array, Array | None]:
    """Runs the decoder over given tokens, as in training (teacher forcing).

    Args:
        params: weights.
        state: the decoder's state, as of `seq2seq_encode`.
        tokens: inputs of each step, `(..., T)`: the target, a start token before it.
        dropout: probability in [0, 1) that a value of the embeddings, between two
            layers or before the logits is set to zero in training.
        key: random key of the dropout; needed only if `dropout` is not 0.

    Returns:
        `(state, logits, weights)`: the state to go on from, logits of the token
        after each, `(..., T, V)`, and the attention's weights, `(..., T, S)`, or of
        each head `(..., heads, T, S)`; None with no attention.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = _check_params(params)
    check_dropout(dropout, key)
    embeddings = _target(params)
    *batch, T = _shape(tokens, "T")
    tokens = check_tokens(tokens, "tokens", len(embeddings))
    _check_state(params, state)
    expected = *_batch(state), T
    check((*batch, T) == expected, "tokens", f"shape {expected}", tokens.shape)
    k_in, k_between, k_out = [None] * 3 if key is None else jax.random.split(key, 3)
    x = drop(embeddings[tokens], dropout, k_in)
    attention, context, weights = params.attention, None, None
    if isinstance(attention, BahdanauParams) or state.feed is not None:

        def body(state: Seq2SeqState, inputs: Any) -> Any:
            t, x_t = inputs
            k_t = None if k_between is None else jax.random.fold_in(k_between, t)
            state, y_t, context, weights = _step(params, state, x_t, dropout, k_t)
            return state, (y_t, context, weights)

        times = jnp.arange(T, dtype=jnp.int32)
        over = times, jnp.moveaxis(x, -2, 0)
        state, (y, context, weights) = lax.scan(body, state, over)
        y, context = (jnp.moveaxis(a, 0, -2) for a in (y, context))
        weights = jnp.moveaxis(weights, 0, -2)
    else:
        layers = [_layer((cell,)) for cell in params.decoder]
        ends, y = stack(layers, x, state.layers, dropout=dropout, key=k_between)
        state = state._replace(layers=ends)
        if attention is not None:
            context, weights = attend(attention.score, y, *_memory(state))
    a = y if state.feed is not None else _output(params, y, context, x)
    return state, _logits(params, drop(a, dropout, k_out)), weights


def seq2seq_decode_step(
    params: Seq2SeqParams, state: Seq2SeqState, token: Array
) -> tuple[Seq2SeqState, Array]:
    """Does one step of the decoder: `partial(seq2seq_decode_step, params)` decodes.

    Args:
        params: weights.
        state: the decoder's state.
        token: the token before, or a start token, `(...)`.

    Returns:
        `(state, logits)`: the new state, and logits of the next token, `(..., V)`.

    Raises:
        ValueError: if a shape, dtype or value does not fit.
    """
    params = _check_params(params)
    token = check_tokens(token, "token", len(_target(params)))
    _check_state(params, state)
    batch = _batch(state)
    check(token.shape == batch, "token", f"shape {batch}", token.shape)
    x = _target(params)[token]
    state, y, context, _ = _step(params, state, x, 0.0, None)
    a = y if state.feed is not None else _output(params, y, context, x)
    return state, _logits(params, a)


def _step(
    params: Seq2SeqParams,
    state: Seq2SeqState,
    x: Array,
    dropout: float,
    key: Array | None,
) -> tuple[Seq2SeqState, Array, Array | None, Array | None]:
    """One step on embeddings: state, y (..., H) or the fed output, context, weights."""
    attention, context, weights, e = params.attention, None, None, x
    if isinstance(attention, BahdanauParams):
        query = hidden(state.layers[-1]).astype(x.dtype)
        context, weights = _attend_one(attention.score, query, state)
        x = jnp.concatenate([x, context], -1)
    if state.feed is not None:
        x = jnp.concatenate([x, state.feed], -1)
    layers = []
    for i, (cell, before) in enumerate(zip(params.decoder, state.layers, strict=True)):
        if i > 0 and key is not None:
            key, k = jax.random.split(key)
            x = drop(x, dropout, k)
        after, x = CELLS[type(cell)][1](cell, before, x)
        layers.append(after)
    state = state._replace(layers=tuple(layers))
    if isinstance(attention, LuongParams):
        context, weights = _attend_one(attention.score, x, state)
    if state.feed is not None:
        x = _output(params, x, context, e)
        state = state._replace(feed=x)
    return state, x, context, weights


def _attend_one(score: Score, query: Array, state: Seq2SeqState) -> Any:
    context, weights = attend(score, query[..., None, :], *_memory(state))
    return context[..., 0, :], weights[..., 0, :]


def _memory(state: Seq2SeqState) -> tuple[Any, Array, Array | None]:
    assert state.memory is not None
    values, keys, valid = state.memory
    return keys, values, valid


def _output(params: Seq2SeqParams, y: Array, context: Array | None, x: Array) -> Array:
    """What the logits are read from."""
    attention = params.attention
    if attention is None or context is None:
        return y
    wide = state_dtype(y.dtype)
    inputs = [context, y] if isinstance(attention, LuongParams) else [y, context, x]
    z = jnp.concatenate(inputs, -1) @ attention.w + attention.b
    if isinstance(attention, LuongParams):
        return jnp.tanh(z.astype(wide)).astype(y.dtype)
    return z.reshape(*z.shape[:-1], z.shape[-1] // 2, 2).max(-1)


def _logits(params: Seq2SeqParams, a: Array) -> Array:
    return a @ params.w_o + params.b_o


def _layer(cells: tuple[Any, ...]) -> Callable[..., Any]:
    directions = [partial(CELLS[type(cell)][0], cell) for cell in cells]
    return directions[0] if len(cells) == 1 else partial(bidirectional, *directions)


def _zeros(cell: Any, batch: tuple[int, ...]) -> Any:
    return CELLS[type(cell)][2](cell, batch)


def _bridge(bridge: BridgeParams, ends: Any, cell: Any) -> Any:
    finals = jnp.concatenate(jax.tree.leaves(ends), -1)
    z = finals @ bridge.w.astype(finals.dtype) + bridge.b.astype(finals.dtype)
    start = _zeros(cell, z.shape[:-1])
    parts, tree = jax.tree.flatten(start)
    first, *others = jnp.split(z, len(parts), -1)
    return jax.tree.unflatten(tree, [jnp.tanh(first), *others])


def _target(params: Seq2SeqParams) -> Array:
    return params.source if params.target is None else params.target


def _feeds(params: Seq2SeqParams) -> bool:
    E = _target(params).shape[-1]
    luong = isinstance(params.attention, LuongParams)
    return luong and params.decoder[0].w_x.shape[0] > E


def _batch(state: Seq2SeqState) -> tuple[int, ...]:
    return jnp.shape(hidden(state.layers[0]))[:-1]


def _shape(tokens: Any, time: str) -> tuple[int, ...]:
    shape = jnp.shape(tokens)
    check(len(shape) >= 1, "tokens", f"shape (..., {time})", shape)
    return shape


def _check_state(params: Seq2SeqParams, state: Any) -> None:
    """All but the shapes of the cells' states, which the cells check."""
    ok = isinstance(state, Seq2SeqState)
    check(ok, "state", "Seq2SeqState", type(state).__name__)
    n, got = len(params.decoder), len(state.layers)
    check(got == n, "state", f"states of {n} layers", got)
    attends = params.attention is not None
    for name, needed in (("feed", _feeds(params)), ("memory", attends)):
        given = getattr(state, name) is not None
        text, got = (f"{'a' if x else 'no'} {name}" for x in (needed, given))
        check(given == needed, "state", text, got)
    batch = _batch(state)
    for leaf in jax.tree.leaves(state):
        shape = jnp.shape(leaf)
        ok = shape[: len(batch)] == batch
        check(ok, "state", f"arrays that start with the batch {batch}", shape)


def _check_params(params: Any) -> Seq2SeqParams:
    ok = isinstance(params, Seq2SeqParams)
    check(ok, "params", "Seq2SeqParams", type(params).__name__)
    for cell in (*sum(params.encoder, ()), *params.decoder):
        kinds = [kind.__name__ for kind in CELLS]
        got = type(cell).__name__
        check(type(cell) in CELLS, "params", f"cells among {kinds}", got)
    return jax.tree.map(jnp.asarray, params)
