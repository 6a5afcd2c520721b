"""The recurrent encoder-decoder as a module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

import jaxseq
from jaxseq.nn._weights import DroppingWeights, check_module


class Seq2Seq(DroppingWeights):
    """A recurrent encoder-decoder; see `jaxseq.seq2seq_init` for what it is made of.

    Args:
        source_vocab: tokens in the source's vocabulary.
        target_vocab: tokens in the target's; if None, both share one.
        embed_features: width of the embeddings.
        hidden_features: width of the state of each layer and direction.
        cell: `jaxseq.LSTM`, `GRU`, `RNN`, or a `Cell` of one's own.
        num_layers: layers of the encoder and of the decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: "bahdanau", "luong" or None.
        score: see `jaxseq.seq2seq_init`.
        feed: whether the attention's output enters the next step ("luong").
        attention_features: width of the attention's output; `hidden_features` if None.
        num_heads: number of heads of the score "multi_head"; 4 if None.
        dropout: probability that a value of the embeddings, between layers or before
            the logits is set to zero in training. It may be an array, to be changed
            under `jit`.
        dtype: dtype of the computation; `param_dtype` if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size, a dtype or an option does not fit.

    Example:
        >>> model = jaxseq.nn.Seq2Seq(
        ...     source_vocab=100, target_vocab=80, embed_features=16,
        ...     hidden_features=32, rngs=nnx.Rngs(0),
        ... )
        >>> source, inputs = jnp.ones((2, 7), int), jnp.ones((2, 5), int)
        >>> model(source, inputs, source_lengths=jnp.array([7, 3])).shape
        (2, 5, 80)
        >>> state, logits = model.decode_step(model.encode(source), jnp.array([1, 1]))
        >>> logits.shape
        (2, 80)
    """

    def __init__(
        self,
        *,
        source_vocab: int,
        target_vocab: int | None = None,
        embed_features: int,
        hidden_features: int,
        cell: jaxseq.Cell = jaxseq.LSTM,
        num_layers: int = 1,
        bidirectional: bool = True,
        attention: str | None = "bahdanau",
        score: str | None = None,
        feed: bool = False,
        attention_features: int | None = None,
        num_heads: int | None = None,
        dropout: ArrayLike = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(rngs, param_dtype)
        params = jaxseq.seq2seq_init(
            rngs.params(),
            source_vocab=source_vocab,
            target_vocab=target_vocab,
            embed_features=embed_features,
            hidden_features=hidden_features,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            attention=attention,
            score=score,
            feed=feed,
            attention_features=attention_features,
            num_heads=num_heads,
            dtype=param_dtype,
        )
        super().__init__(params, dropout, dtype, rngs)
        self.cell = nnx.static(cell)

    def __call__(
        self,
        source: ArrayLike,
        inputs: ArrayLike,
        *,
        source_lengths: ArrayLike | None = None,
    ) -> Array:
        """Logits `(..., T, V)` of what follows each token of `inputs` `(..., T)`.

        `source` is `(..., S)`, of which `source_lengths` `(...)` are valid; all if
        None.
        """
        state = self.encode(source, source_lengths=source_lengths)
        return self.decode(state, inputs)[1]

    def encode(
        self, source: ArrayLike, *, source_lengths: ArrayLike | None = None
    ) -> jaxseq.Seq2SeqState:
        """The decoder's initial state; see `jaxseq.seq2seq_encode`."""
        return jaxseq.seq2seq_encode(
            self.params,
            source,
            cell=self.cell,
            source_lengths=source_lengths,
            **self._dropping(),
        )

    def decode(
        self, state: jaxseq.Seq2SeqState, inputs: ArrayLike
    ) -> tuple[jaxseq.Seq2SeqState, Array, Array | None]:
        """`(state, logits, weights)` of given tokens; see `jaxseq.seq2seq_decode`."""
        return jaxseq.seq2seq_decode(
            self.params, state, inputs, cell=self.cell, **self._dropping()
        )

    def decode_step(
        self, state: jaxseq.Seq2SeqState, token: ArrayLike
    ) -> tuple[jaxseq.Seq2SeqState, Array]:
        """`(state, logits)` of one step; see `jaxseq.seq2seq_decode_step`."""
        return jaxseq.seq2seq_decode_step(self.params, state, token, cell=self.cell)
