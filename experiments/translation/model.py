"""The models of the library, as the training and the search use them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import jaxseq
from experiments.frame.trainer import Loss
from experiments.translation.data import Batch
from experiments.translation.settings import Settings
from experiments.translation.vocabulary import of_facts
from jaxseq.nn import Seq2Seq, Transformer

CELLS = {"rnn": jaxseq.RNN, "lstm": jaxseq.LSTM, "gru": jaxseq.GRU}


class EncoderDecoder(nnx.Module):
    """Shapes: sources (B, S), lengths (B,), inputs (B, T), tokens (B,)."""

    def __init__(self, settings: Settings, source: int, target: int, rngs: nnx.Rngs):
        self.label_smoothing = settings.label_smoothing
        H, layers, heads = settings.hidden, settings.layers, settings.heads
        how: Any = {"source_vocab": source, "target_vocab": target}
        how |= {"dropout": settings.dropout, "rngs": rngs}
        if settings.model == "transformer":
            self.net = Transformer(
                features=H, num_heads=heads, ff_features=2 * H,
                num_encoder_layers=layers, num_decoder_layers=layers, **how,
            )  # fmt: skip
        else:
            attention = None if settings.model == "plain" else settings.model
            self.net = Seq2Seq(
                embed_features=settings.embedding, hidden_features=H,
                cell=CELLS[settings.cell], num_layers=layers, attention=attention,
                score=settings.score, feed=settings.feed,
                num_heads=heads if settings.score == "multi_head" else None, **how,
            )  # fmt: skip

    def __call__(
        self, sources: Array, lengths: Array, inputs: Array
    ) -> tuple[Array, Array | None]:
        """Logits `(B, T, V)`, and weights of attention `(B, T, S)` if it attends."""
        encoded: Any = self.net.encode(sources, source_lengths=lengths)
        _, logits, weights = self.net.decode(encoded, inputs)
        weights = [mean_over_heads(w) for w in jax.tree.leaves(weights)]
        return logits, jnp.stack(weights).mean(0) if weights else None  # over layers

    def start(self, sources: Array, lengths: Array, room: int) -> Any:
        """The state of a search."""
        encoded: Any = self.net.encode(sources, source_lengths=lengths)
        if isinstance(self.net, Seq2Seq):
            return encoded
        return self.net.zeros(encoded, room=room)

    def step(self, state: Any, tokens: Array) -> tuple[Any, Array]:
        return self.net.decode_step(state, tokens)


def mean_over_heads(weights: Array) -> Array:
    return weights if weights.ndim == 3 else weights.mean(-3)


def make(settings: Settings, facts: dict[str, Any]) -> EncoderDecoder:
    source, target = map(len, of_facts(facts))
    return EncoderDecoder(settings, source, target, nnx.Rngs(settings.seed))


def loss(model: EncoderDecoder, batch: Batch) -> Loss:
    """Sums of smoothed cross-entropies; what is shown is not smoothed."""
    logits, _ = model(*map(jnp.asarray, batch[:3]))
    args = logits, jnp.asarray(batch.targets)
    lengths = jnp.asarray(batch.target_lengths)
    smoothed, plain = (
        jaxseq.cross_entropy(*args, lengths=lengths, label_smoothing=s).sum()
        for s in (model.label_smoothing, 0.0)
    )
    return Loss(smoothed, lengths.sum(), plain)
