"""The tagger: words and their letters, a BiLSTM, scores of the tags, perhaps a CRF."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import jaxseq.nn
from experiments.tagging.settings import Settings
from experiments.tagging.vocabulary import PAD, UNKNOWN, Vocabulary


class Tagger(nnx.Module):
    """Maps words `(B, T)`, and the letters of each, to scores of tags `(B, T, K)`."""

    def __init__(self, settings: Settings, vocabulary: Vocabulary, *, rngs: nnx.Rngs):
        K, H = len(vocabulary.tags), settings.hidden
        small = jax.nn.initializers.normal(0.3)
        embed = lambda names, D: nnx.Embed(
            len(names) + UNKNOWN + 1, D, embedding_init=small, rngs=rngs
        )
        self.word_dropout, self.rngs = settings.word_dropout, rngs
        self.deterministic = False
        self.words = embed(vocabulary.words, settings.embedding)
        D, E, C = settings.embedding, settings.letter_embedding, settings.letter_hidden
        letters = settings.letters
        self.letters = embed(vocabulary.letters, E) if letters else None
        self.spelling = (
            jaxseq.nn.LSTM(E, C, bidirectional=True, rngs=rngs) if letters else None
        )
        D += 2 * C if letters else 0
        self.recurrent = jaxseq.nn.LSTM(
            D, H, num_layers=settings.layers, bidirectional=True,
            dropout=settings.dropout if settings.layers > 1 else 0.0, rngs=rngs,
        )  # fmt: skip
        self.dropout = nnx.Dropout(settings.dropout, rngs=rngs)
        self.head = nnx.Linear(2 * H, K, rngs=rngs)
        self.crf = jaxseq.nn.CRF(K, rngs=rngs) if settings.crf else None

    def spelt(self, parts: Array, lengths: Array) -> Array:
        """Of letters `(N, L, P)`, of several parts each, vectors of words `(N, 2C)`."""
        assert self.letters is not None and self.spelling is not None
        vectors = jnp.where((parts != PAD)[..., None], self.letters(parts), 0).sum(-2)
        (ends,), _ = self.spelling(vectors, lengths=lengths)
        return jnp.concatenate([end.h for end in ends], -1)

    def __call__(self, batch: Any) -> Array:
        words = batch.words
        if self.word_dropout > 0 and not self.deterministic:
            drop = jax.random.bernoulli(self.rngs(), self.word_dropout, words.shape)
            words = jnp.where(drop, UNKNOWN, words)
        x = self.words(words)
        if self.letters is not None:
            spelt = self.spelt(batch.letters.value, batch.letter_lengths.value)
            x = jnp.concatenate([x, spelt[batch.forms]], -1)
        _, y = self.recurrent(self.dropout(x), lengths=batch.lengths)
        return self.head(self.dropout(y))


def make(settings: Settings, facts: dict[str, Any]) -> Tagger:
    """The model for the vocabulary among the facts."""
    vocabulary = Vocabulary(**facts["vocabulary"])
    return Tagger(settings, vocabulary, rngs=nnx.Rngs(settings.seed))


def loss(model: Tagger, batch: Any) -> tuple[Array, Array]:
    """The sum of the negative log-likelihoods, and the number of words."""
    scores, tags, lengths = model(batch), batch.tags, batch.lengths
    if model.crf is not None:
        return model.crf.loss(scores, tags, lengths=lengths).sum(), lengths.sum()
    nats = optax.softmax_cross_entropy_with_integer_labels(scores, tags)
    valid = jnp.arange(tags.shape[1]) < lengths[:, None]
    return jnp.where(valid, nats, 0).sum(), lengths.sum()


@nnx.jit
def decode(model: Tagger, batch: Any) -> Array:
    """The likeliest tags `(B, T)`: of each word, or with a CRF of each sentence."""
    scores = model(batch)
    if model.crf is not None:
        return model.crf.decode(scores, lengths=batch.lengths)[0]
    return scores.argmax(-1)
