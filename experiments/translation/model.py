"""The models of the library, as the training and the search use them."""

from typing import Any

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
        how: Any = {"dropout": settings.dropout, "rngs": rngs}
        if settings.model == "transformer":
            self.net = Transformer(
                H, heads, 2 * H, source_size=source, target_size=target,
                encoder_layers=layers, decoder_layers=layers, **how,
            )  # fmt: skip
        else:
            attention = None if settings.model == "plain" else settings.model
            self.net = Seq2Seq(
                source, target, settings.embedding, H, cell=CELLS[settings.cell],
                num_layers=layers, attention=attention, score=settings.score,
                feed=settings.feed, num_heads=heads, **how,
            )  # fmt: skip

    def __call__(
        self, sources: Array, lengths: Array, inputs: Array
    ) -> tuple[Array, Array | None]:
        """Logits `(B, T, V)`, and weights of attention `(B, T, S)` if it attends."""
        if isinstance(self.net, Seq2Seq):
            state = self.net.encode(sources, lengths=lengths)
            return self.net.decode(state, inputs)[1:]
        memory = self.net.encode(sources, lengths=lengths)
        logits, weights = self.net.decode(inputs, memory, memory_lengths=lengths)
        assert weights is not None
        return logits, jnp.stack(weights).mean((0, -3))  # over layers and heads

    def start(self, sources: Array, lengths: Array, max_length: int) -> Any:
        """The state of a search."""
        if isinstance(self.net, Seq2Seq):
            return self.net.encode(sources, lengths=lengths)
        memory = self.net.encode(sources, lengths=lengths)
        how: Any = {"memory_lengths": lengths, "max_length": max_length}
        return self.net.zeros(memory, **how)

    def step(self, state: Any, tokens: Array) -> tuple[Any, Array]:
        return self.net.decode_step(state, tokens)


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
