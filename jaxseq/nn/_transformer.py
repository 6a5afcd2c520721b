"""The Transformer as a module."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq._base.check import check, check_callable
from jaxseq.nn._weights import DroppingWeights, check_module


class Transformer(DroppingWeights):
    """Encoder, decoder, or both; see `jaxseq.transformer_init`.

    Args:
        features: width of the model.
        num_heads: number of heads.
        ff_features: width between the two maps of a layer.
        source_vocab: tokens in the encoder's vocabulary.
        target_vocab: tokens in the decoder's; if None, where there is an encoder, the
            two share one.
        num_encoder_layers: layers of the encoder; 0 for none.
        num_decoder_layers: layers of the decoder; 0 for none.
        positions: "sinusoidal", "learned" or "rotary".
        max_positions: how many positions are learned.
        pre_norm: whether norms stand before the sub-layers, or after them.
        final_norm: whether one more norm stands behind the last layer of each stack;
            `pre_norm` if None.
        epsilon: added to the variance by the norms.
        tied: whether logits are read with the decoder's embeddings.
        activation: between the two maps of a layer.
        dropout: probability that a value of the embeddings or of a sub-layer's output
            is set to zero in training. It may be an array, to be changed under
            `jit`.
        dtype: dtype of the computation; `param_dtype` if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size, a dtype or an option does not fit.

    Example:
        >>> model = jaxseq.nn.Transformer(
        ...     features=16, num_heads=2, ff_features=32, source_vocab=100,
        ...     target_vocab=80, num_encoder_layers=2, num_decoder_layers=2,
        ...     rngs=nnx.Rngs(0),
        ... )
        >>> source, inputs = jnp.ones((2, 7), int), jnp.ones((2, 5), int)
        >>> model(source, inputs, source_lengths=jnp.array([7, 3])).shape
        (2, 5, 80)
    """

    def __init__(
        self,
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
        activation: Callable[[Array], Array] = jax.nn.relu,
        dropout: ArrayLike = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(rngs, param_dtype)
        check_callable(activation, "activation")
        params = jaxseq.transformer_init(
            rngs.params(),
            features=features,
            num_heads=num_heads,
            ff_features=ff_features,
            source_vocab=source_vocab,
            target_vocab=target_vocab,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            positions=positions,
            max_positions=max_positions,
            pre_norm=pre_norm,
            final_norm=final_norm,
            epsilon=epsilon,
            tied=tied,
            dtype=param_dtype,
        )
        super().__init__(params, dropout, dtype, rngs)
        self.activation = activation

    def __call__(
        self,
        source: ArrayLike | None,
        inputs: ArrayLike,
        *,
        source_lengths: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        window: int | None = None,
    ) -> Array:
        """Logits `(..., T, V)` of what follows each token of `inputs` `(..., T)`.

        `source` is `(..., S)`, of which `source_lengths` `(...)` are valid; all if
        None. A decoder alone has no source: None. Of `inputs` the first `lengths`
        `(...)` are valid, all if None; past them logits are zeros. Each attends to the
        last `window` up to its own, all if None.
        """
        reads = self.weights.encoder is not None
        expected, got = "None with no encoder", type(source_lengths).__name__
        check(reads or source_lengths is None, "source_lengths", expected, got)
        expected = "tokens for the encoder" if reads else expected
        check(reads == (source is not None), "source", expected, type(source).__name__)
        memory = None
        if source is not None:
            memory = self.encode(source, source_lengths=source_lengths)
        return self.decode(memory, inputs, lengths=lengths, window=window)[1]

    def encode(
        self, source: ArrayLike, *, source_lengths: ArrayLike | None = None
    ) -> jaxseq.Memory:
        """A vector for each token; see `jaxseq.transformer_encode`."""
        return jaxseq.transformer_encode(
            self.params,
            source,
            source_lengths=source_lengths,
            activation=self.activation,
            **self._dropping(),
        )

    def decode(
        self,
        memory: jaxseq.Memory | None,
        inputs: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        room: int | None = None,
        window: int | None = None,
    ) -> tuple[jaxseq.TransformerState, Array, tuple[Array, ...] | None]:
        """`(state, logits, weights)` of given tokens.

        See `jaxseq.transformer_decode`.
        """
        return jaxseq.transformer_decode(
            self.params,
            memory,
            inputs,
            lengths=lengths,
            room=room,
            window=window,
            activation=self.activation,
            **self._dropping(),
        )

    def zeros(
        self,
        memory: jaxseq.Memory | None = None,
        *,
        batch: int | tuple[int, ...] = (),
        room: int | None = None,
        window: int | None = None,
    ) -> jaxseq.TransformerState:
        """The decoder's state before a token; see `jaxseq.transformer_zeros`."""
        return jaxseq.transformer_zeros(
            self.params, memory, batch=batch, room=room, window=window
        )

    def decode_step(
        self, state: jaxseq.TransformerState, token: ArrayLike
    ) -> tuple[jaxseq.TransformerState, Array]:
        """`(state, logits)` of one step; see `jaxseq.transformer_decode_step`."""
        return jaxseq.transformer_decode_step(
            self.params, state, token, activation=self.activation
        )
