"""What a type checker makes of calls: `make lint` runs pyright over this file.

Here they are traced, and there `assert_type` holds for what they return.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

import jaxseq
import jaxseq.nn

KEY = jax.random.key(0)
B, T, D, H = 2, 4, 3, 5
X = np.ones((B, T, D), np.float32)
LENGTHS, MASK, RESETS = np.array([4, 2]), np.ones((B, T), bool), np.zeros((B, T), bool)
ZEROS = np.zeros((B, H), np.float32)


def traced(test: Callable[[], None]) -> Callable[[], None]:
    return wraps(test)(lambda: jax.eval_shape(test))


class Clock(NamedTuple):
    """A state of a user's own."""

    h: Array
    ticks: Array


def tick(z_x: Array, state: Clock, w_h: Any, _: None) -> Clock:
    return Clock(jnp.tanh(z_x + w_h(state.h)), state.ticks + 1)


def elman(z_x: Array, h: Array, w_h: Any, _: None) -> Array:
    return jnp.tanh(z_x + w_h(h))


@traced
def test_cells_take_numpy_arrays():
    params = jaxseq.lstm_init(KEY, D, H)
    state, y = jaxseq.lstm(params, X, lengths=LENGTHS, mask=MASK, resets=RESETS)
    assert_type((state, y), tuple[jaxseq.LSTMState, Array])
    h, y = jaxseq.gru(jaxseq.gru_init(KEY, D, H), X, ZEROS, start=ZEROS[0])
    assert_type((h, y), tuple[Array, Array])
    h, y = jaxseq.rnn_step(jaxseq.rnn_init(KEY, D, H), ZEROS, X[:, 0])
    assert_type((h, y), tuple[Array, Array])


@traced
def test_a_state_of_a_users_own_comes_back():
    params = jaxseq.cell_init(KEY, D, H, (H, H))
    start = Clock(jnp.zeros(H, jnp.float32), jnp.zeros(1, jnp.float32))
    state, _ = jaxseq.cell(tick, params, X, start=start, lengths=LENGTHS)
    assert_type(state, Clock)
    state, _ = jaxseq.cell_step(tick, params, state, X[:, 0])
    assert_type(state, Clock)
    assert_type(jaxseq.cell_states(tick, params, X, state), Clock)
    h, _ = jaxseq.cell(elman, params, X, ZEROS)
    assert_type(h, Array)


@traced
def test_both_directions_take_what_their_layers_take():
    forward = partial(jaxseq.lstm, jaxseq.lstm_init(KEY, D, H))
    backward = partial(jaxseq.gru, jaxseq.gru_init(KEY, D, H))
    state, _ = jaxseq.bidirectional(forward, backward, X, lengths=LENGTHS)
    assert_type(state, tuple[jaxseq.LSTMState, Array])
    params = jaxseq.cell_init(KEY, D, H, (H, H))
    params = params._replace(w_x=(params.w_x, params.w_x), b=None)
    add = lambda z_x, h, w_h, _: jnp.tanh(sum(z_x) + w_h(h))
    layer = partial(jaxseq.cell, add, params, zeros=H)
    jaxseq.bidirectional(layer, layer, (X, X))  # a tree
    with pytest.raises(ValueError, match=r"^x: .* list"):
        jaxseq.bidirectional(forward, forward, [[1.0]])  # pyright: ignore[reportArgumentType]


@traced
def test_attention_search_and_losses_take_numpy_arrays():
    context, weights = jaxseq.dot_attention(X, X, lengths=LENGTHS, scale=np.float32(1))
    assert_type((context, weights), tuple[Array, Array])
    step = lambda state, token: (state, jnp.eye(4)[token])
    found = jaxseq.greedy(step, ZEROS, np.array([0, 1]), max_length=2, end=3)
    assert_type(found, jaxseq.Decoded)
    tags, score = jaxseq.crf_decode(jaxseq.crf_init(KEY, D), X, mask=MASK)
    assert_type((tags, score), tuple[Array, Array])
    assert_type(jaxseq.cross_entropy(X, np.ones((B, T), int)), Array)


@traced
def test_transformers_take_numpy_arrays():
    params = jaxseq.transformer_init(
        KEY, features=4, num_heads=2, ff_features=4, target_vocab=3,
        num_decoder_layers=1,
    )  # fmt: skip
    tokens = np.ones((B, T), int)
    state, logits, _ = jaxseq.transformer_decode(
        params, None, tokens, lengths=LENGTHS, window=2, dropout=np.float32(0)
    )
    assert_type((state, logits), tuple[jaxseq.TransformerState, Array])
    state, logits = jaxseq.transformer_decode_step(params, state, tokens[:, 0])
    assert_type((state, logits), tuple[jaxseq.TransformerState, Array])


@traced
def test_modules_take_numpy_arrays():
    module = jaxseq.nn.GRU(D, H, rngs=nnx.Rngs(0))
    assert_type(module, jaxseq.nn.GRU)
    _, y = module(X, lengths=LENGTHS)
    assert_type(y, Array)


@traced
def test_modules_of_models_take_numpy_arrays():
    rngs, tokens = nnx.Rngs(0), np.ones((B, T), int)
    crf = jaxseq.nn.CRF(D, rngs=rngs)
    assert_type(crf.loss(X, tokens, lengths=LENGTHS, mask=MASK), Array)
    assert_type(crf.decode(X, mask=MASK), tuple[Array, Array])
    attend = jaxseq.nn.GeneralAttention(D, D, rngs=rngs)
    assert_type(attend(X, X, lengths=LENGTHS), tuple[Array, Array])
    translate = jaxseq.nn.Seq2Seq(
        source_vocab=4, embed_features=D, hidden_features=H, dropout=np.float32(0),
        rngs=rngs,
    )  # fmt: skip
    assert_type(translate(tokens, tokens, source_lengths=LENGTHS), Array)
    state, logits = translate.decode_step(translate.encode(tokens), tokens[:, 0])
    assert_type((state, logits), tuple[jaxseq.Seq2SeqState, Array])
    model = jaxseq.nn.Transformer(
        features=4, num_heads=2, ff_features=5, target_vocab=4, num_decoder_layers=1,
        dropout=np.float32(0), rngs=rngs,
    )  # fmt: skip
    assert_type(model(None, tokens, lengths=LENGTHS, window=2), Array)
    state, logits = model.decode_step(model.zeros(batch=B, room=T), tokens[:, 0])
    assert_type((state, logits), tuple[jaxseq.TransformerState, Array])


def test_lists_are_refused():
    with pytest.raises(ValueError, match=r"^x: .* list"):
        params = jaxseq.gru_init(KEY, D, H)
        jaxseq.gru(params, [[1.0]])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^keys: .* list"):
        jaxseq.dot_attention(X, [[1.0]])  # pyright: ignore[reportArgumentType]


@traced
def test_scans():
    def body(h: Array, x: Array) -> tuple[Array, Array]:
        return h + x, h

    assert_type(jaxseq.scan(body, ZEROS[:, :D], X.swapaxes(0, 1)), tuple[Any, Any])
    found = jaxseq.linear_scan(X, X, lengths=LENGTHS, mask=MASK)
    assert_type(found, tuple[Array, Array])
    cell = nnx.GRUCell(D, H, rngs=nnx.Rngs(0))
    assert_type(
        jaxseq.nn.over_time(cell, X, lengths=LENGTHS, mask=MASK, resets=RESETS),
        tuple[Any, Any],
    )


def test_files(tmp_path: Path):
    path, params = tmp_path / "gru", jaxseq.gru_init(KEY, D, H)
    jaxseq.save(path, params)
    assert_type(jaxseq.load(path), Any)
    assert_type(jaxseq.load(str(path), params), jaxseq.GRUParams)
    assert_type(jaxseq.load_arrays(path), dict[str, Any])
