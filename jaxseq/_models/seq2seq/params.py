"""Weights of a recurrent encoder-decoder, and how they start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import Dot, ScaledDot, additive_init, multi_head_init
from jaxseq._attention.prepared import Score
from jaxseq._base.check import check, check_dtype, check_sizes
from jaxseq._cells.any import LSTM, cell_of, check_cell
from jaxseq._cells.cell import Cell
from jaxseq._models.seq2seq.cells import widths_of

SCORES = ("additive", "general", "dot", "scaled_dot", "multi_head")


class BridgeParams(NamedTuple):
    """Of the encoder's final states, F wide in all, one decoder layer's, S wide."""

    w: Array  # (F, S)
    b: Array  # (S,)


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


def seq2seq_init(
    key: Array,
    source: int,
    target: int | None,
    E: int,
    H: int,
    *,
    cell: Cell = LSTM,
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
        cell: `LSTM`, `GRU`, `RNN`, or a `Cell` of one's own, for all layers.
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
    check_cell(cell)
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
        tuple(cell.init(next(keys), width, H, dtype=dtype) for _ in range(directions))
        for width in [E] + [C] * (layers - 1)
    )
    extra = C if attention == "bahdanau" else A if feed else 0
    widths = [E + extra] + [H] * (layers - 1)
    decoder = tuple(cell.init(next(keys), n, H, dtype=dtype) for n in widths)
    S = sum(widths_of(cell, decoder[0]))
    bridge = lambda: glorot(next(keys), (directions * S, S), dtype)
    bridges = tuple(BridgeParams(bridge(), jnp.zeros(S, dtype)) for _ in range(layers))
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
        return multi_head_init(
            key, H, heads, A // heads, key_features=C, out_features=C, dtype=dtype
        )
    if score == "general":
        return jax.nn.initializers.glorot_uniform()(key, (H, C), dtype)
    check(C == H, "score", f'not "{score}", which needs C = H', f"C = {C}, H = {H}")
    return Dot() if score == "dot" else ScaledDot()


def target_embeddings(params: Seq2SeqParams) -> Array:
    return params.source if params.target is None else params.target


def feeds(params: Seq2SeqParams) -> bool:
    E = target_embeddings(params).shape[-1]
    luong = isinstance(params.attention, LuongParams)
    return luong and jax.tree.leaves(params.decoder[0].w_x)[0].shape[0] > E


def check_params(params: Any, cell: Cell | None) -> Seq2SeqParams:
    ok = isinstance(params, Seq2SeqParams)
    check(ok, "params", "Seq2SeqParams", type(params).__name__)
    for weights in (*sum(params.encoder, ()), *params.decoder):
        cell_of(cell, weights)
    return jax.tree.map(jnp.asarray, params)
