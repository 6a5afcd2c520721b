"""Weights of a recurrent encoder-decoder."""

from typing import Any, NamedTuple

from jax import Array

from jaxseq._attention.prepared import Score


class BridgeParams(NamedTuple):
    """Weights of the map from the encoder's final states to one decoder layer's.

    Fields:
        w: from all parts of the final states, F wide in all, to all parts of the
            layer's state, S wide in all: `(F, S)`.
        b: bias, `(S,)`.
    """

    w: Array
    b: Array


class BahdanauParams(NamedTuple):
    """Attention before the cell, and the readout's layer of A units, by maxout.

    Fields:
        score: `AdditiveParams`, a matrix as of `general_attention`, `MultiHeadParams`,
            `Dot` or `ScaledDot`.
        w: of the readout's layer, from the cell's output, the context and the input:
            `(H + C + E, 2A)`.
        b: bias of that, `(2A,)`.
    """

    score: Score
    w: Array
    b: Array


class InputFeeding(NamedTuple):
    """Stands for input feeding in a model's weights: a step reads the output before."""


class LuongParams(NamedTuple):
    """Attention after the cell, and the A units that its context goes into.

    Fields:
        score: as of `BahdanauParams`.
        w: from the context and the cell's output to these units, `(C + H, A)`.
        b: bias of that, `(A,)`.
        feeding: `InputFeeding` if a step reads these units of the step before.
    """

    score: Score
    w: Array
    b: Array
    feeding: InputFeeding | None = None


class Seq2SeqParams(NamedTuple):
    """Weights of a recurrent encoder-decoder.

    The cells of an encoder layer are those of each direction. The first decoder
    layer reads E inputs, and with Bahdanau's attention C more, with input feeding A
    more; C is the width of the encoder's outputs.

    Fields:
        source: embeddings of the source, `(source vocabulary, E)`.
        target: embeddings of the target, `(target vocabulary, E)`; those of the
            source if None.
        encoder: of each layer a tuple with the cell's weights in each direction.
        bridge: of each decoder layer what its first state is made with.
        decoder: of each layer the cell's weights.
        attention: of Bahdanau's kind or of Luong's, or None.
        w_o: of the logits, `(A, target vocabulary)`; `(H, target vocabulary)` with no
            attention.
        b_o: bias of the logits, `(target vocabulary,)`.
    """

    source: Array
    target: Array | None
    encoder: tuple[tuple[Any, ...], ...]
    bridge: tuple[BridgeParams, ...]
    decoder: tuple[Any, ...]
    attention: BahdanauParams | LuongParams | None
    w_o: Array
    b_o: Array


def target_embeddings(params: Seq2SeqParams) -> Array:
    return params.source if params.target is None else params.target


def feeds(params: Seq2SeqParams) -> bool:
    attention = params.attention
    return isinstance(attention, LuongParams) and attention.feeding is not None
