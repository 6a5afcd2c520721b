"""Weights of a Transformer, and how they start."""

import json
import math
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import MultiHeadParams, multi_head_init
from jaxseq._base.check import check, check_dtype, check_flag, check_sizes
from jaxseq._models.transformer.positions import (
    POSITIONS,
    Positions,
    Rotary,
    Sinusoidal,
)


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


@jax.tree_util.register_static
class NormLayout(NamedTuple):
    """How the norms of a stack are applied: static, with no array to train or cast."""

    pre_norm: bool  # whether they stand before the sub-layers, or after them
    epsilon: float  # added to the variance


with suppress(ValueError):  # where this file is loaded again
    jax.export.register_pytree_node_serialization(
        NormLayout,
        serialized_name="jaxseq.NormLayout",
        serialize_auxdata=lambda layout: json.dumps(layout).encode(),
        deserialize_auxdata=lambda text: NormLayout(*json.loads(bytes(text))),
    )


class TransformerStack(NamedTuple):
    """An encoder or a decoder.

    Where the norms of the layers stand is `layout`; `norm` says only whether there is
    one more behind the last layer. All four combinations are in use.
    """

    embed: Array | None  # (vocabulary, D); that of the encoder if None
    layers: tuple[TransformerLayer, ...]
    norm: NormParams | None  # behind the last layer, or none
    layout: NormLayout


class TransformerParams(NamedTuple):
    """Weights of a Transformer of width D."""

    encoder: TransformerStack | None
    decoder: TransformerStack | None
    positions: Positions
    w_o: Array | None = None  # (D, vocabulary); the embeddings, transposed, if None


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
    final_norm: bool | None = None,
    epsilon: float = 1e-5,
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
        most_positions: how many positions are learned; longer sequences are refused,
            or NaN beyond where a number of steps is symbolic.
        pre_norm: whether norms stand before the sub-layers, or after them.
        final_norm: whether one more norm stands behind the last layer of each stack;
            `pre_norm` if None. `torch.nn.Transformer` has one in either layout.
        epsilon: added to the variance by the norms; PyTorch has 1e-5, Flax 1e-6,
            Keras 1e-3, BERT 1e-12.
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
    layout = NormLayout(check_flag(pre_norm, "pre_norm"), check_epsilon(epsilon))
    if final_norm is None:
        final_norm = layout.pre_norm
    check_flag(final_norm, "final_norm")
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
        return TransformerStack(embed, layers, norm() if final_norm else None, layout)

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


def check_epsilon(epsilon: Any, name: str = "epsilon") -> float:
    known = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    ok = known and 0 < epsilon < math.inf
    check(ok, name, "a number above 0, and no array", repr(epsilon))
    return float(epsilon)


def embed_of(params: TransformerParams, name: str) -> Array:
    stack, other = getattr(params, name), params.encoder
    embed = stack.embed if stack.embed is not None or other is None else other.embed
    check(embed is not None, "params", f"embeddings of the {name}", "None")
    assert embed is not None
    return embed


def decoder_of(params: TransformerParams) -> TransformerStack:
    stack = params.decoder
    check(stack is not None, "params", "weights with a decoder", "none")
    assert stack is not None
    return stack


def check_params(params: Any) -> TransformerParams:
    ok = isinstance(params, TransformerParams)
    check(ok, "params", "TransformerParams", type(params).__name__)
    for name in ("encoder", "decoder"):
        stack = getattr(params, name)
        if stack is not None:
            _check_layout(stack.layout, f"params.{name}.layout")
    return jax.tree.map(jnp.asarray, params)


def _check_layout(layout: Any, name: str) -> None:
    got = type(layout).__name__
    check(isinstance(layout, NormLayout), name, "NormLayout", got)
    check_flag(layout.pre_norm, f"{name}.pre_norm")
    check_epsilon(layout.epsilon, f"{name}.epsilon")
