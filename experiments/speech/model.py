"""The recogniser: a bidirectional LSTM that says at each step a digit or nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import optax
from flax import nnx
from jax import Array

import jaxseq
import jaxseq.nn
from experiments.speech.audio import BANDS
from experiments.speech.data import Example, batches
from experiments.speech.settings import Settings

BLANK = 0  # a digit d is the token d + 1
TOKENS = 11


class Recogniser(nnx.Module):
    """Maps sounds `(B, T, D)` to logits of blank and digits, `(B, T, 11)`."""

    def __init__(self, settings: Settings, features: int, *, rngs: nnx.Rngs):
        H, rate = settings.hidden, settings.dropout
        self.recurrent = jaxseq.nn.LSTM(
            features, H, num_layers=settings.layers, bidirectional=True,
            dropout=rate if settings.layers > 1 else 0.0, rngs=rngs,
        )  # fmt: skip
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(2 * H, TOKENS, rngs=rngs)

    def __call__(self, x: Array, lengths: Array) -> Array:
        _, y = self.recurrent(x, lengths=lengths)
        return self.head(self.dropout(y))


def make(settings: Settings, facts: dict[str, Any]) -> Recogniser:
    width = settings.stack * BANDS
    return Recogniser(settings, width, rngs=nnx.Rngs(settings.seed))


def loss(model: Recogniser, batch: Any) -> tuple[Array, Array]:
    """The sum of the losses of CTC, and the number of digits."""
    logits = model(batch.x, batch.lengths)
    outside = jnp.arange(batch.x.shape[1]) >= batch.lengths[:, None]
    none = jnp.arange(batch.labels.shape[1]) >= batch.sizes[:, None]
    nats = optax.ctc_loss(
        logits, outside.astype(logits.dtype), batch.labels, none.astype(logits.dtype),
        blank_id=BLANK,
    )  # fmt: skip
    return jnp.where(batch.sizes > 0, nats, 0).sum(), batch.sizes.sum()


class Heard(NamedTuple):
    """What was said and what is heard of it: digits with spaces between them."""

    said: str
    greedy: str
    beam: str


@nnx.jit(static_argnames="beam")
def decode(model: Recogniser, x: Any, lengths: Any, *, beam: int) -> Any:
    """Of each sound the likeliest token of each step joined, and what a search finds.

    Also the probabilities of blank and digits at each step, `(B, T, 11)`.
    """
    logits, how = model(x, lengths), {"lengths": lengths, "blank": BLANK}
    best = jaxseq.ctc_beam_search(logits, **how, beam=beam)
    best = jax.tree.map(lambda a: a[:, 0], best)
    return (jaxseq.ctc_greedy(logits, **how), best), jax.nn.softmax(logits)


def transcribed(
    model: Recogniser, examples: list[Example], settings: Settings
) -> list[Heard]:
    """What the model hears in each example, by both ways of decoding."""
    spaced = lambda digits: " ".join(map(str, digits))
    found: dict[int, Heard] = {}
    for batch, rows in batches(examples, settings):
        decoded, _ = decode(model, batch.x, batch.lengths, beam=settings.beam)
        decoded = jax.device_get(decoded)
        for at, row in enumerate(rows):
            heard = (spaced(d.tokens[at, : d.lengths[at]] - 1) for d in decoded)
            found[row] = Heard(spaced(examples[row].digits), *heard)
    return [found[row] for row in range(len(examples))]


def scores(heard: list[Heard]) -> dict[str, float]:
    """Word error rates and the share of strings without error, in percent."""
    said, *ways = map(list, zip(*heard, strict=True))
    found = {}
    for name, told in zip(("", ", beam"), ways, strict=True):
        right = [a == b for a, b in zip(told, said, strict=True)]
        found[f"WER{name}"] = 100 * float(jiwer.wer(said, told))
        found[f"right{name}"] = 100 * float(np.mean(right))
    return found
