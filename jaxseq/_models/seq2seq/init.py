"""How the weights of a recurrent encoder-decoder start."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import (
    Dot,
    ScaledDot,
    additive_init,
    multi_head_init,
)
from jaxseq._attention.prepared import Score
from jaxseq._base.check import (
    check,
    check_choice,
    check_dtype,
    check_flag,
    check_key,
    check_sizes,
    check_value,
)
from jaxseq._cells.any import LSTM, check_cell
from jaxseq._cells.cell import Cell
from jaxseq._models.seq2seq.cells import widths_of
from jaxseq._models.seq2seq.params import (
    BahdanauParams,
    BridgeParams,
    InputFeeding,
    LuongParams,
    Seq2SeqParams,
)

ATTENTIONS = ("bahdanau", "luong", None)
SCORES = ("additive", "general", "dot", "scaled_dot", "multi_head")


def seq2seq_init(
    key: Array,
    *,
    source_vocab: int,
    target_vocab: int | None = None,
    embed_features: int,
    hidden_features: int,
    cell: Cell = LSTM,
    num_layers: int = 1,
    bidirectional: bool = True,
    attention: str | None = "bahdanau",
    score: str | None = None,
    feed: bool = False,
    attention_features: int | None = None,
    num_heads: int | None = None,
    dtype: Any = jnp.float32,
) -> Seq2SeqParams:
    """Draws the weights of a recurrent encoder-decoder.

    Args:
        key: random key.
        source_vocab: tokens in the source's vocabulary.
        target_vocab: tokens in the target's; if None, source and target share one
            vocabulary and its embeddings.
        embed_features: width of the embeddings, E.
        hidden_features: width of the state of each layer and direction, H, so the
            outputs of an encoder in both directions are C = 2H wide.
        cell: `LSTM`, `GRU`, `RNN`, or a `Cell` of one's own, for all layers.
        num_layers: layers of the encoder and of the decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: "bahdanau", before the cell; "luong", after it; or None.
        score: of the attention: "additive", "general", "dot" (which needs C = H),
            "scaled_dot" (the same) or "multi_head"; if None, "additive" before the
            cell and "general" after it.
        feed: whether the attention's output enters the next step ("luong").
        attention_features: width of the attention's output and of an additive score,
            A; `hidden_features` if None.
        num_heads: number of heads of "multi_head", each of width A / num_heads; 4 if
            None.
        dtype: of the weights.

    Returns:
        `Seq2SeqParams`: cells as of `cell`, embeddings standard normal, other weights
        Glorot uniform, biases zero.

    Raises:
        ValueError: if a size is not positive, or an option is unknown or would have
            no effect.

    Example:
        >>> params = jaxseq.seq2seq_init(
        ...     jax.random.key(0), source_vocab=90, target_vocab=70,
        ...     embed_features=16, hidden_features=32,
        ... )
        >>> params.source.shape, params.w_o.shape
        ((90, 16), (32, 70))
    """
    E, H, n = embed_features, hidden_features, num_layers
    size = source_vocab if target_vocab is None else target_vocab
    check_key(key)
    check_sizes(source_vocab=source_vocab, target_vocab=size)
    check_sizes(embed_features=E, hidden_features=H, num_layers=n)
    check_dtype(dtype, "dtype")
    check_cell(cell)
    directions = 2 if check_flag(bidirectional, "bidirectional") else 1
    A = H if attention_features is None else attention_features
    check_sizes(attention_features=A)
    has_feed = check_flag(feed, "feed")
    score = _check_attention(attention, score, has_feed, attention_features)
    N = _check_heads(num_heads, score, A)

    keys = iter(jax.random.split(key, 6 + 4 * n))
    C = directions * H
    one = lambda width: cell.init(next(keys), width, H, dtype=dtype)
    encoder = tuple(
        tuple(one(width) for _ in range(directions)) for width in [E] + [C] * (n - 1)
    )
    more = C if attention == "bahdanau" else A if has_feed else 0
    decoder = tuple(one(width) for width in [E + more] + [H] * (n - 1))
    S = sum(widths_of(cell, decoder[0]))
    bridge = tuple(_bridge_init(next(keys), directions * S, S, dtype) for _ in decoder)
    attend = None
    if score is not None:
        scored = _score_init(next(keys), score, H, C, A, N, dtype)
        init = _bahdanau_init if attention == "bahdanau" else _luong_init
        attend = init(next(keys), scored, H, C, E, A, dtype)
    if isinstance(attend, LuongParams) and has_feed:
        attend = attend._replace(feeding=InputFeeding())
    embed = lambda size: jax.random.normal(next(keys), (size, E), dtype)
    return Seq2SeqParams(
        source=embed(source_vocab),
        target=None if target_vocab is None else embed(target_vocab),
        encoder=encoder,
        bridge=bridge,
        decoder=decoder,
        attention=attend,
        w_o=_glorot(next(keys), (H if attend is None else A, size), dtype),
        b_o=jnp.zeros(size, dtype),
    )


def _glorot(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    return jax.nn.initializers.glorot_uniform()(key, shape, dtype)


def _bridge_init(key: Array, F: int, S: int, dtype: Any) -> BridgeParams:
    return BridgeParams(_glorot(key, (F, S), dtype), jnp.zeros(S, dtype))


def _bahdanau_init(
    key: Array, score: Score, H: int, C: int, E: int, A: int, dtype: Any
) -> BahdanauParams:
    w = _glorot(key, (H + C + E, 2 * A), dtype)
    return BahdanauParams(score, w, jnp.zeros(2 * A, dtype))


def _luong_init(
    key: Array, score: Score, H: int, C: int, E: int, A: int, dtype: Any
) -> LuongParams:
    return LuongParams(score, _glorot(key, (C + H, A), dtype), jnp.zeros(A, dtype))


def _score_init(
    key: Array, score: str, H: int, C: int, A: int, N: int, dtype: Any
) -> Score:
    if score == "additive":
        return additive_init(key, H, C, A, dtype=dtype)
    if score == "multi_head":
        return multi_head_init(
            key, H, N, A // N, key_features=C, out_features=C, dtype=dtype
        )
    if score == "general":
        return _glorot(key, (H, C), dtype)
    check(C == H, "score", f'not "{score}", which needs C = H', f"C = {C}, H = {H}")
    return Dot() if score == "dot" else ScaledDot()


def _check_attention(attention: Any, score: Any, feed: bool, A: Any) -> str | None:
    """Checks the options that belong to some attention, and returns the score."""
    check_choice(attention, "attention", ATTENTIONS)
    ok = not feed or attention == "luong"
    check(ok, "feed", 'False without attention "luong"', feed)
    if attention is None:
        for name, option in (("score", score), ("attention_features", A)):
            check_value(option is None, name, "None with no attention", option)
        return None
    if score is None:
        return "additive" if attention == "bahdanau" else "general"
    check_choice(score, "score", SCORES)
    return score


def _check_heads(num_heads: Any, score: str | None, A: int) -> int:
    if score != "multi_head":
        expected = 'None without score "multi_head"'
        check_value(num_heads is None, "num_heads", expected, num_heads)
        return 0
    N = 4 if num_heads is None else num_heads
    check_sizes(num_heads=N)
    check(A % N == 0, "num_heads", f"a divisor of attention_features = {A}", N)
    return N
