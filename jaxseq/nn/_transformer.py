"""The Transformer as a module."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq
from jaxseq._base.check import check, check_sizes
from jaxseq.nn._weights import DroppingWeights, check_module


class Transformer(DroppingWeights):
    """Encoder, decoder, or both; see `jaxseq.transformer_init`.

    Args:
        features: width of the model.
        num_heads: number of heads.
        hidden_features: width between the two maps of a layer.
        source_size: tokens in the encoder's vocabulary.
        target_size: tokens in the decoder's; if None, where there is an encoder, the
            two share one.
        encoder_layers: layers of the encoder; 0 for none.
        decoder_layers: layers of the decoder; 0 for none.
        positions: "sinusoidal", "learned" or "rotary".
        most_positions: how many positions are learned.
        pre_norm: whether norms stand before the sub-layers, or after them.
        tied: whether logits are read with the decoder's embeddings.
        activation: between the two maps of a layer.
        dropout: probability that a value of the embeddings or of a sub-layer's output
            is set to zero in training.
        dtype: dtype of the computation; `param_dtype` if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size, a dtype or an option does not fit.

    Example:
        >>> sizes = {"source_size": 100, "target_size": 80}
        >>> layers = {"encoder_layers": 2, "decoder_layers": 2}
        >>> model = Transformer(16, 2, 32, **sizes, **layers, rngs=nnx.Rngs(0))
        >>> source, target = jnp.ones((2, 7), int), jnp.ones((2, 5), int)
        >>> model(target, source, lengths=jnp.array([7, 3])).shape
        (2, 5, 80)
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        hidden_features: int,
        *,
        source_size: int | None = None,
        target_size: int | None = None,
        encoder_layers: int = 0,
        decoder_layers: int = 0,
        positions: str = "sinusoidal",
        most_positions: int | None = None,
        pre_norm: bool = True,
        tied: bool = True,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dropout: float = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(
            rngs,
            param_dtype,
            features=features,
            num_heads=num_heads,
            hidden_features=hidden_features,
            source_size=source_size,
            target_size=target_size,
            most_positions=most_positions,
        )
        _check_options(features, num_heads, positions)
        _check_vocabularies(source_size, target_size, encoder_layers, decoder_layers)
        params = jaxseq.transformer_init(
            rngs.params(),
            features,
            num_heads,
            hidden_features,
            source=source_size,
            target=target_size,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            positions=positions,
            most_positions=most_positions,
            pre_norm=pre_norm,
            tied=tied,
            dtype=param_dtype,
        )
        super().__init__(params, dropout, dtype, rngs)
        self.activation = activation

    def __call__(
        self,
        target: Array,
        source: Array | None = None,
        *,
        lengths: Array | None = None,
    ) -> Array:
        """Logits `(..., T, V)` of what follows each token of `target` `(..., T)`.

        `source` is `(..., S)`, of which `lengths` `(...)` are valid; all if None. A
        decoder alone has no source.
        """
        memory = None if source is None else self.encode(source, lengths=lengths)
        return self.decode(target, memory, memory_lengths=lengths)[0]

    def encode(self, source: Array, *, lengths: Array | None = None) -> Array:
        """A vector for each token; see `jaxseq.transformer_encode`."""
        how = {"activation": self.activation, **self._dropping()}
        return jaxseq.transformer_encode(self.params, source, lengths=lengths, **how)

    def decode(
        self,
        target: Array,
        memory: Array | None = None,
        *,
        memory_lengths: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """`(logits, weights)` of given tokens; see `jaxseq.transformer_decode`."""
        how = {"activation": self.activation, **self._dropping()}
        how["memory_lengths"] = memory_lengths
        return jaxseq.transformer_decode(self.params, target, memory, **how)

    def zeros(
        self,
        memory: Array | None = None,
        *,
        memory_lengths: Array | None = None,
        batch: tuple[int, ...] = (),
        max_length: int,
    ) -> jaxseq.TransformerState:
        """The decoder's state before a token; see `jaxseq.transformer_zeros`."""
        how: Any = {"memory_lengths": memory_lengths, "batch": batch}
        how["max_length"] = max_length
        return jaxseq.transformer_zeros(self.params, memory, **how)

    def decode_step(
        self, state: jaxseq.TransformerState, token: Array
    ) -> tuple[jaxseq.TransformerState, Array]:
        """`(state, logits)` of one step; see `jaxseq.transformer_decode_step`."""
        how = {"activation": self.activation}
        return jaxseq.transformer_decode_step(self.params, state, token, **how)


def _check_options(features: int, num_heads: int, positions: str) -> None:
    """What `transformer_init` would say of D and N."""
    ok = features % num_heads == 0
    check(ok, "num_heads", f"a divisor of features = {features}", num_heads)
    width = features // num_heads if positions == "rotary" else features
    ok = width % 2 == 0 or positions not in ("sinusoidal", "rotary")
    check(ok, "features", f"an even width for {positions} positions", width)


def _check_vocabularies(
    source_size: int | None, target_size: int | None, encoder: int, decoder: int
) -> None:
    if encoder:
        check_sizes(source_size=source_size)
    if decoder and not encoder:
        check_sizes(target_size=target_size)
