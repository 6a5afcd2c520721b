"""From images to a run, and from its model to captions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxseq
from experiments import buckets, data, fit
from experiments.buckets import Bucket
from experiments.captions import names
from experiments.captions.model import Captioner, loss
from experiments.captions.names import END, LANGUAGES, LONGEST, START, TABLE
from experiments.captions.settings import Settings
from experiments.fit import Fit


class Part(NamedTuple):
    images: np.ndarray  # (N, 8, 8), from 0 to 1
    digits: np.ndarray  # (N,)


class Batch(NamedTuple):
    images: np.ndarray  # (B, 8, 8)
    inputs: np.ndarray  # (B, L): the language, then the letters
    targets: np.ndarray  # (B, L): the letters, then the end
    lengths: np.ndarray  # (B,), 0 for what only fills the batch


def load() -> tuple[Part, Part, Part]:
    """Training, validation and test images, no image in two parts."""
    images, digits, ends = data.digits()
    train, validation, test = (Part(images[rows], digits[rows]) for rows in ends)
    return train, validation, test


def batch(part: Part, rows: Sequence[int], size: int) -> Batch:
    """Rows are pairs of an image and a language: image times languages + language."""
    pairs = [divmod(row, len(LANGUAGES)) for row in rows]
    spelt = [names.tokens(language, part.digits[i]) for i, language in pairs]
    targets, lengths = buckets.pad(spelt, size, LONGEST, END)
    images, _ = buckets.pad([part.images[i] for i, _ in pairs], size, 8)
    first = np.full(size, START)
    first[: len(pairs)] += [language for _, language in pairs]
    inputs = np.concatenate([first[:, None], targets[:, :-1]], 1).astype(np.int32)
    return Batch(images, inputs, targets, lengths)


def bucket(part: Part, size: int) -> Bucket:
    rows = list(range(len(part.images) * len(LANGUAGES)))
    return Bucket(rows, size, lambda rows: batch(part, rows, size))


def make_model(settings: Settings, facts: dict[str, Any]) -> Captioner:
    return Captioner(settings, rngs=nnx.Rngs(settings.seed))


def digest(part: Part) -> str:
    return fit.digest([part.images, part.digits, TABLE])


def make(settings: Settings, parts: Sequence[Part]) -> tuple[Fit, dict[str, Any]]:
    """A run over the images, and its facts."""
    train, validation = (bucket(part, settings.batch) for part in parts[:2])
    batches = buckets.endless([train], settings.seed)
    held_out = [made for made, _ in buckets.once([validation])]
    model, facts = make_model(settings, {}), {"digest": digest(parts[0])}
    per_step = settings.batch
    return Fit(settings, model, loss, batches, held_out, per_step=per_step), facts


def captions(model: Captioner, images: np.ndarray, beam: int) -> list[list[str]]:
    """The name of each image in each language; greedily where `beam` is 1."""
    N, K = len(images), len(LANGUAGES)

    def decode(model: Captioner, images: Any) -> jax.Array:
        state = model.start(jnp.repeat(images, K, 0))
        token = jnp.tile(jnp.arange(START, START + K, dtype=jnp.int32), N)
        options: Any = {"max_length": LONGEST, "end": END}
        if beam == 1:
            return jaxseq.greedy(model.step, state, token, **options).tokens
        found = jaxseq.beam_search(model.step, state, token, **options, beam=beam)
        return found.tokens[:, 0]

    tokens = np.asarray(nnx.jit(decode)(model, images)).tolist()
    spelt = [names.text(row) for row in tokens]
    return [spelt[i : i + K] for i in range(0, N * K, K)]


def scores(
    greedy: list[list[str]], beam: list[list[str]], part: Part
) -> dict[str, float]:
    """Names that are right to the letter, in percent: of all languages and of each.

    `agree` is the share of images whose names are of one digit in all languages.
    """
    right = lambda said: np.array(
        [
            [name == TABLE[k][digit] for k, name in enumerate(row)]
            for row, digit in zip(said, part.digits, strict=True)
        ]
    )
    agree = [
        any(row == [names[d] for names in TABLE] for d in range(10)) for row in greedy
    ]
    exact = 100 * right(greedy).mean(0)
    return {
        "all": float(exact.mean()),
        "all, beam": 100 * float(right(beam).mean()),
        "agree": 100 * float(np.mean(agree)),
        **dict(zip(LANGUAGES, exact.tolist(), strict=True)),
    }
