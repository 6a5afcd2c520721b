"""From settings to a run, and from its model to transcripts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jiwer
import numpy as np
from flax import nnx

import jaxseq
from experiments import buckets
from experiments.buckets import Bucket
from experiments.fit import Fit
from experiments.speech import audio
from experiments.speech.corpus import Corpus, Example
from experiments.speech.model import BLANK, Recogniser, loss
from experiments.speech.settings import Settings

WIDTHS = (64, 128, 192)  # steps


class Batch(NamedTuple):
    x: np.ndarray  # (B, T, D)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    labels: np.ndarray  # (B, N), tokens
    sizes: np.ndarray  # (B,), their number


def features(sound: np.ndarray, settings: Settings) -> np.ndarray:
    """What the network is given of a sound, `(T, D)`."""
    return audio.stacked(audio.log_mel(sound, settings.center), settings.stack)


def batch(
    xs: Sequence[np.ndarray],
    strings: Sequence[list[int]],
    size: int,
    width: int,
    most: int,
) -> Batch:
    """Sounds and strings padded to `size` rows, `width` steps and `most` digits."""
    x, lengths = buckets.pad(xs, size, width)
    tokens = [np.array(digits, np.int32) + 1 for digits in strings]
    return Batch(x, lengths, *buckets.pad(tokens, size, most))


class Drawn:
    """Endless training batches, each drawn by its number: strings of one length."""

    def __init__(self, draw: Any, settings: Settings):
        self.draw, self.settings = draw, settings

    def __getitem__(self, step: int) -> Batch:
        settings = self.settings
        chance = np.random.default_rng([settings.seed, step])
        n = 1 + int(chance.integers(settings.digits))
        xs, strings = [], []
        for _ in range(settings.batch):
            sound, digits = self.draw(chance, n)
            if settings.augment:
                sound = audio.changed(chance, sound)
            frames = audio.log_mel(sound, settings.center)
            if settings.augment:
                frames = audio.masked(chance, frames)
            xs.append(audio.stacked(frames, settings.stack))
            strings.append(digits)
        width = buckets.bound(max(map(len, xs)), WIDTHS)
        return batch(xs, strings, settings.batch, width, settings.digits)


def batches(
    examples: list[Example], settings: Settings
) -> list[tuple[Batch, list[int]]]:
    """Every example once, as batches and the numbers of what is in them."""
    xs = [features(e.sound, settings) for e in examples]
    most = max(1, max(len(e.digits) for e in examples))
    size = settings.batch

    def bucket(width: int, rows: list[int]) -> Bucket:
        def collate(rows: Sequence[int]) -> Batch:
            strings = [examples[i].digits for i in rows]
            return batch([xs[i] for i in rows], strings, size, width, most)

        return Bucket(rows, size, collate)

    by_width = buckets.by_width([*map(len, xs)], WIDTHS)
    return buckets.once([bucket(width, rows) for width, rows in by_width.items()])


def make_model(settings: Settings, facts: dict[str, Any]) -> Recogniser:
    width = settings.stack * audio.BANDS
    return Recogniser(settings, width, rngs=nnx.Rngs(settings.seed))


def make(settings: Settings, loaded: Corpus) -> tuple[Fit, dict[str, Any]]:
    """A run over the data, and its facts."""
    facts = {"digest": loaded.digests["all"]}
    drawn = Drawn(loaded.draw, settings)
    held_out = [batch for batch, _ in batches(loaded.validation, settings)]
    model, per_step = make_model(settings, facts), settings.batch
    return Fit(settings, model, loss, drawn, held_out, per_step=per_step), facts


class Heard(NamedTuple):
    greedy: list[str]  # digits with spaces between them
    beam: list[str]


def transcribed(
    model: Recogniser, examples: list[Example], settings: Settings
) -> Heard:
    """What the model hears in each example, by both ways of decoding."""

    def decode(model: Recogniser, x: Any, lengths: Any) -> Any:
        logits = model(x, lengths)
        options: Any = {"lengths": lengths, "blank": BLANK}
        best = jaxseq.ctc_beam_search(logits, **options, beam=settings.beam)
        best = jax.tree.map(lambda a: a[:, 0], best)
        return jaxseq.ctc_greedy(logits, **options), best

    run = nnx.jit(decode)
    found: tuple[list, list] = ([""] * len(examples), [""] * len(examples))
    for made, rows in batches(examples, settings):
        for said, decoded in zip(found, run(model, made.x, made.lengths), strict=True):
            tokens, lengths = np.asarray(decoded.tokens), np.asarray(decoded.lengths)
            for row, t, n in zip(rows, tokens, lengths, strict=False):
                said[row] = " ".join(str(token - 1) for token in t[:n])
    return Heard(*found)


def truth(examples: list[Example]) -> list[str]:
    return [" ".join(map(str, example.digits)) for example in examples]


def scores(heard: Heard, examples: list[Example]) -> dict[str, float]:
    """Word error rates and the share of strings without error, in percent."""
    told = truth(examples)
    found = {}
    for name, said in (("", heard.greedy), (", beam", heard.beam)):
        right = [a == b for a, b in zip(said, told, strict=True)]
        found[f"WER{name}"] = 100 * float(jiwer.wer(told, said))
        found[f"right{name}"] = 100 * float(np.mean(right))
    return found


def title(settings: Settings) -> str:
    if settings.speaker is None:
        return settings.data
    return f"{settings.data}, {settings.speaker} not in training"
