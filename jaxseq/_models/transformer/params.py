"""Weights of a Transformer."""

import json
import math
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.export
from jax import Array

from jaxseq._attention.params import MultiHeadParams
from jaxseq._base.check import check, check_value
from jaxseq._models.transformer.positions import Positions


class NormParams(NamedTuple):
    """Layer normalisation, of Ba, Kiros and Hinton, 2016.

    Fields:
        scale: of each feature, `(D,)`.
        b: bias, `(D,)`.
    """

    scale: Array
    b: Array


class TransformerLayer(NamedTuple):
    """Weights of one layer, of width D.

    Fields:
        attention: self-attention.
        attention_norm: its norm.
        cross: attention of a decoder to the encoder's outputs; None where there are
            none.
        cross_norm: its norm, or None.
        w_1: first of the two maps, `(D, F)`.
        b_1: its bias, `(F,)`.
        w_2: second of the two maps, `(F, D)`.
        b_2: its bias, `(D,)`.
        norm: the norm of the two maps.
    """

    attention: MultiHeadParams
    attention_norm: NormParams
    cross: MultiHeadParams | None
    cross_norm: NormParams | None
    w_1: Array
    b_1: Array
    w_2: Array
    b_2: Array
    norm: NormParams


@jax.tree_util.register_static
class NormLayout(NamedTuple):
    """How the norms of a stack are applied: static, with no array to train or cast.

    Fields:
        pre_norm: whether they stand before the sub-layers, or after them.
        epsilon: added to the variance.
    """

    pre_norm: bool
    epsilon: float


with suppress(ValueError):  # where this file is loaded again
    jax.export.register_pytree_node_serialization(
        NormLayout,
        serialized_name="jaxseq.NormLayout",
        serialize_auxdata=lambda layout: json.dumps(layout).encode(),
        deserialize_auxdata=lambda text: NormLayout(*json.loads(bytes(text))),
    )


class TransformerStack(NamedTuple):
    """An encoder or a decoder.

    `layout` says where the norms of the layers are; `norm` says only whether there is
    one more after the last layer. All four combinations are in use.

    Fields:
        embed: embeddings, `(V, D)` for V tokens; those of the encoder if None.
        layers: weights of each layer.
        norm: after the last layer; no norm if None.
        layout: how the norms are applied.
    """

    embed: Array | None
    layers: tuple[TransformerLayer, ...]
    norm: NormParams | None
    layout: NormLayout


class TransformerParams(NamedTuple):
    """Weights of a Transformer of width D.

    Fields:
        encoder: embeddings and layers of the encoder, or None.
        decoder: embeddings and layers of the decoder, or None.
        positions: `Sinusoidal`, `Rotary`, or those learned, `(max_positions, D)`.
        w_o: output map, `(D, V)`; the decoder's embeddings, transposed, if None.
    """

    encoder: TransformerStack | None
    decoder: TransformerStack | None
    positions: Positions
    w_o: Array | None = None


def check_epsilon(epsilon: Any, name: str = "epsilon") -> float:
    known = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    ok = known and 0 < epsilon < math.inf
    check_value(ok, name, "a number above 0, and no array", epsilon)
    return float(epsilon)


def embed_of(params: TransformerParams, name: str) -> Array:
    stack, other = getattr(params, name), params.encoder
    embed = stack.embed if stack.embed is not None or other is None else other.embed
    check(embed is not None, "params", f"embeddings of the {name}", "None")
    assert embed is not None
    return embed


def encoder_of(params: TransformerParams) -> TransformerStack:
    stack = params.encoder
    check(stack is not None, "params", "weights with an encoder", "none")
    assert stack is not None
    return stack


def decoder_of(params: TransformerParams) -> TransformerStack:
    stack = params.decoder
    check(stack is not None, "params", "weights with a decoder", "none")
    assert stack is not None
    return stack
