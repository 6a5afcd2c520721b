"""The recurrent encoder-decoder as a module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq
from jaxseq._base.check import check
from jaxseq.nn._weights import DroppingWeights, check_module


class Seq2Seq(DroppingWeights):
    """A recurrent encoder-decoder; see `jaxseq.seq2seq_init` for what it is made of.

    Args:
        source_size: tokens in the source's vocabulary.
        target_size: tokens in the target's; if None, both share one.
        embedding_features: width of the embeddings.
        hidden_features: width of the state of each layer and direction.
        cell: `jaxseq.LSTM`, `GRU`, `RNN`, or a `Cell` of one's own.
        num_layers: layers of the encoder and of the decoder.
        bidirectional: whether the encoder reads in both directions.
        attention: "bahdanau", "luong" or None.
        score: see `jaxseq.seq2seq_init`.
        feed: whether the attention's output enters the next step ("luong").
        attention_features: width of the attention's output; `hidden_features` if None.
        num_heads: number of heads of the score "multi_head".
        dropout: probability that a value of the embeddings, between layers or before
            the logits is set to zero in training.
        dtype: dtype of the computation; `param_dtype` if None.
        param_dtype: dtype of the stored weights.
        rngs: random keys: "params" for the weights, "dropout" for dropout.

    Raises:
        ValueError: if a size, a dtype or an option does not fit.

    Example:
        >>> model = Seq2Seq(100, 80, 16, 32, rngs=nnx.Rngs(0))
        >>> source, target = jnp.ones((2, 7), int), jnp.ones((2, 5), int)
        >>> model(source, target, lengths=jnp.array([7, 3])).shape
        (2, 5, 80)
        >>> state, logits = model.decode_step(model.encode(source), jnp.array([1, 1]))
        >>> logits.shape
        (2, 80)
    """

    def __init__(
        self,
        source_size: int,
        target_size: int | None,
        embedding_features: int,
        hidden_features: int,
        *,
        cell: jaxseq.Cell = jaxseq.LSTM,
        num_layers: int = 1,
        bidirectional: bool = True,
        attention: str | None = "bahdanau",
        score: str | None = None,
        feed: bool = False,
        attention_features: int | None = None,
        num_heads: int = 4,
        dropout: float = 0.0,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_module(
            rngs,
            param_dtype,
            source_size=source_size,
            target_size=target_size,
            embedding_features=embedding_features,
            hidden_features=hidden_features,
            num_layers=num_layers,
            attention_features=attention_features,
            num_heads=num_heads,
        )
        A = hidden_features if attention_features is None else attention_features
        ok = score != "multi_head" or attention is None or A % num_heads == 0
        check(ok, "num_heads", f"a divisor of attention_features = {A}", num_heads)
        params = jaxseq.seq2seq_init(
            rngs.params(),
            source_size,
            target_size,
            embedding_features,
            hidden_features,
            cell=cell,
            layers=num_layers,
            bidirectional=bidirectional,
            attention=attention,
            score=score,
            feed=feed,
            A=attention_features,
            heads=num_heads,
            dtype=param_dtype,
        )
        super().__init__(params, dropout, dtype, rngs)
        self.cell = nnx.static(cell)

    def __call__(
        self, source: Array, target: Array, *, lengths: Array | None = None
    ) -> Array:
        """Logits `(..., T, V)` of what follows each token of `target` `(..., T)`.

        `source` is `(..., S)`, of which `lengths` `(...)` are valid; all if None.
        """
        return self.decode(self.encode(source, lengths=lengths), target)[1]

    def encode(
        self, source: Array, *, lengths: Array | None = None
    ) -> jaxseq.Seq2SeqState:
        """The decoder's initial state; see `jaxseq.seq2seq_encode`."""
        return jaxseq.seq2seq_encode(
            self.params, source, cell=self.cell, lengths=lengths, **self._dropping()
        )

    def decode(
        self, state: jaxseq.Seq2SeqState, target: Array
    ) -> tuple[jaxseq.Seq2SeqState, Array, Array | None]:
        """`(state, logits, weights)` of given tokens; see `jaxseq.seq2seq_decode`."""
        return jaxseq.seq2seq_decode(
            self.params, state, target, cell=self.cell, **self._dropping()
        )

    def decode_step(
        self, state: jaxseq.Seq2SeqState, token: Array
    ) -> tuple[jaxseq.Seq2SeqState, Array]:
        """`(state, logits)` of one step; see `jaxseq.seq2seq_decode_step`."""
        return jaxseq.seq2seq_decode_step(self.params, state, token, cell=self.cell)
