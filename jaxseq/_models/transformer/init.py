"""How the weights of a Transformer are drawn."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxseq._attention.params import multi_head_init
from jaxseq._base.check import (
    check,
    check_choice,
    check_dtype,
    check_flag,
    check_key,
    check_sizes,
    check_value,
    is_whole,
)
from jaxseq._models.transformer.params import (
    NormLayout,
    NormParams,
    TransformerLayer,
    TransformerParams,
    TransformerStack,
    check_epsilon,
)
from jaxseq._models.transformer.positions import (
    POSITIONS,
    Positions,
    Rotary,
    Sinusoidal,
)


def transformer_init(
    key: Array,
    *,
    features: int,
    num_heads: int,
    ff_features: int,
    source_vocab: int | None = None,
    target_vocab: int | None = None,
    num_encoder_layers: int = 0,
    num_decoder_layers: int = 0,
    positions: str = "sinusoidal",
    max_positions: int | None = None,
    pre_norm: bool = True,
    final_norm: bool | None = None,
    epsilon: float = 1e-5,
    tied: bool = True,
    dtype: Any = jnp.float32,
) -> TransformerParams:
    """Draws the weights of a Transformer.

    Args:
        key: random key.
        features: width of the model, D.
        num_heads: number of heads N, each of width D / N.
        ff_features: width between the two maps of a layer, F.
        source_vocab: tokens in the encoder's vocabulary.
        target_vocab: tokens in the decoder's; if None, where there is an encoder, the
            two share one vocabulary and its embeddings.
        num_encoder_layers: layers of the encoder; 0 for none (a language model).
        num_decoder_layers: layers of the decoder; 0 for none.
        positions: "sinusoidal", "learned", or "rotary", which acts in self-attention.
        max_positions: number of learned positions. Longer sequences are refused; where
            the number of steps is symbolic, what comes past them is NaN.
        pre_norm: whether norms come before the sub-layers, or after them.
        final_norm: whether one more norm comes after the last layer of each stack;
            `pre_norm` if None. `torch.nn.Transformer` has one in either layout.
        epsilon: added to the variance by the norms; 1e-5 in PyTorch, 1e-6 in Flax,
            1e-3 in Keras, 1e-12 in BERT.
        tied: whether the decoder's embeddings, transposed, are the output map.
        dtype: of the weights.

    Returns:
        `TransformerParams`: embeddings and learned positions normal with deviation
        `D ** -0.5`, other weights Glorot uniform, biases zero, scales one.

    Raises:
        ValueError: if a size is not positive, `num_heads` does not divide `features`,
            or an option is unknown or would have no effect.

    Example:
        >>> params = jaxseq.transformer_init(
        ...     jax.random.key(0), features=16, num_heads=2, ff_features=32,
        ...     target_vocab=90, num_decoder_layers=2, positions="rotary",
        ... )
        >>> params.decoder.embed.shape, len(params.decoder.layers)
        ((90, 16), 2)
    """
    D, n, m = features, num_encoder_layers, num_decoder_layers
    check_key(key)
    _check_widths(D, num_heads, ff_features, positions)
    check_dtype(dtype, "dtype")
    layout = NormLayout(check_flag(pre_norm, "pre_norm"), check_epsilon(epsilon))
    if final_norm is None:
        final_norm = layout.pre_norm
    check_flag(final_norm, "final_norm")
    _check_layers(n, m)
    _check_vocabularies(source_vocab, target_vocab, n, m, check_flag(tied, "tied"))
    keys = iter(jax.random.split(key, n + m + 4))
    embed = lambda size: _embeddings(next(keys), size, D, dtype)

    def stack(size: int | None, layers: int, with_cross: bool) -> TransformerStack:
        sizes = D, num_heads, ff_features, with_cross, dtype
        return TransformerStack(
            embed=embed(size),
            layers=tuple(_layer_init(next(keys), *sizes) for _ in range(layers)),
            norm=_norm_init(D, dtype) if final_norm else None,
            layout=layout,
        )

    encoder = stack(source_vocab, n, False) if n else None
    decoder = stack(target_vocab, m, n > 0) if m else None
    learned = positions == "learned"
    if learned:
        check_sizes(max_positions=max_positions)
    else:
        expected = f"None with {positions} positions"
        check_value(max_positions is None, "max_positions", expected, max_positions)
    where = embed(max_positions) if learned else _without_weights(positions)
    w_o = None
    if not tied:
        size = source_vocab if target_vocab is None else target_vocab
        w_o = jax.nn.initializers.glorot_uniform()(next(keys), (D, size), dtype)
    return TransformerParams(encoder, decoder, where, w_o)


def _without_weights(positions: str) -> Positions:
    return Rotary() if positions == "rotary" else Sinusoidal()


def _embeddings(key: Array, size: int | None, D: int, dtype: Any) -> Any:
    if size is None:
        return None
    return jax.nn.initializers.normal(D**-0.5)(key, (size, D), dtype)


def _norm_init(D: int, dtype: Any) -> NormParams:
    return NormParams(jnp.ones(D, dtype), jnp.zeros(D, dtype))


def _layer_init(
    key: Array, D: int, N: int, F: int, with_cross: bool, dtype: Any
) -> TransformerLayer:
    k_self, k_cross, k_1, k_2 = jax.random.split(key, 4)
    glorot = jax.nn.initializers.glorot_uniform()
    heads = lambda key: multi_head_init(key, D, N, D // N, dtype=dtype)
    return TransformerLayer(
        attention=heads(k_self),
        attention_norm=_norm_init(D, dtype),
        cross=heads(k_cross) if with_cross else None,
        cross_norm=_norm_init(D, dtype) if with_cross else None,
        w_1=glorot(k_1, (D, F), dtype),
        b_1=jnp.zeros(F, dtype),
        w_2=glorot(k_2, (F, D), dtype),
        b_2=jnp.zeros(D, dtype),
        norm=_norm_init(D, dtype),
    )


def _check_widths(D: Any, N: Any, F: Any, positions: Any) -> None:
    check_sizes(features=D, num_heads=N, ff_features=F)
    check(D % N == 0, "num_heads", f"a divisor of features = {D}", N)
    check_choice(positions, "positions", POSITIONS)
    width = D // N if positions == "rotary" else D
    even = positions == "learned" or width % 2 == 0
    whose = "heads" if positions == "rotary" else "features"
    check(even, "features", f"{whose} of an even width for {positions} positions", D)


def _check_layers(encoder: Any, decoder: Any) -> None:
    layers = {"num_encoder_layers": encoder, "num_decoder_layers": decoder}
    for name, n in layers.items():
        ok = is_whole(n) and n >= 0
        check_value(ok, name, "a number of layers, 0 or more", n)
    some = encoder + decoder > 0
    check(some, "num_encoder_layers", "a layer in encoder or decoder", "none in both")


def _check_vocabularies(
    source: Any, target: Any, encoder: int, decoder: int, tied: bool
) -> None:
    if encoder:
        check_sizes(source_vocab=source)
    else:
        no = "None with no encoder layers"
        check_value(source is None, "source_vocab", no, source)
    if not decoder:
        no = "None with no decoder layers"
        check_value(target is None, "target_vocab", no, target)
        check(tied, "tied", "True with no decoder layers", tied)
    elif target is not None or not encoder:
        check_sizes(target_vocab=target)
