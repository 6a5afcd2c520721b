"""Strings of digits as sound: recordings joined, or Morse code."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.frame import buckets
from experiments.frame.buckets import Bucket
from experiments.frame.data import WHOLE, Data, Share, digest, part
from experiments.frame.errors import InputError
from experiments.speech import audio, morse
from experiments.speech.audio import RATE
from experiments.speech.recordings import Recording, recordings, split
from experiments.speech.settings import Settings

ROOM = 0.01  # noise between recordings, to their mean loudness
WIDTHS = (64, 128, 192)  # steps


class Example(NamedTuple):
    sound: np.ndarray
    digits: list[int]


class Batch(NamedTuple):
    x: np.ndarray  # (B, T, D)
    lengths: np.ndarray  # (B,), 0 for what only fills the batch
    labels: np.ndarray  # (B, N), tokens
    sizes: np.ndarray  # (B,), their number


def features(
    sound: np.ndarray, settings: Settings, left_out: Sequence[slice] = ()
) -> np.ndarray:
    """What the network is given of a sound, `(T, D)`, without some of the bands."""
    frames = audio.log_mel(sound, settings.center)
    for bands in left_out:
        frames[:, bands] = 0
    return audio.stacked(frames, settings.stack)


def batch(
    rows: Sequence[tuple[np.ndarray, list[int]]], size: int, width: int, most: int
) -> Batch:
    """Features and digits padded to `size` rows, `width` steps and `most` digits."""
    xs, strings = zip(*rows, strict=True)
    tokens = [np.array(digits, np.int32) + 1 for digits in strings]
    return Batch(*buckets.pad(xs, size, width), *buckets.pad(tokens, size, most))


def fits(steps: int, digits: Sequence[int]) -> bool:
    """Whether CTC can align the digits: a step each, and one between two alike."""
    alike = sum(a == b for a, b in pairwise(digits))
    return steps >= len(digits) + alike


def steps_of(sound: np.ndarray, settings: Settings) -> int:
    """The number of steps that the network is given of a sound."""
    frames = 1 + max(0, len(sound) - audio.WINDOW) // audio.HOP
    return -(-frames // settings.stack)


@dataclass(frozen=True)
class Drawn:
    """Endless training batches, each drawn by its number: strings of one length.

    Strings that CTC cannot align are left out; a batch of no others is drawn again.
    """

    draw: Callable[..., Example]  # from a generator, of so many digits
    settings: Settings

    def __getitem__(self, step: int) -> Batch:
        return self.part(step, WHOLE)

    def part(self, step: int, share: Share) -> Batch:
        """The rows of a process. All sounds are drawn, features taken of its own."""
        settings, rows = self.settings, []
        chance = np.random.default_rng([settings.seed, step])
        own = share.of(settings.batch)
        while not rows:  # of single digits all are kept
            drawn = [self.varied(e, chance) for e in self.strings(chance)]
            fit = lambda e: fits(steps_of(e.sound, settings), e.digits)
            rows = [row for row in drawn if fit(row[0])]
        if not rows[own]:
            return part(self[step], share)
        width = max(steps_of(e.sound, settings) for e, _ in rows)
        heard = [(features(e.sound, settings, gone), e.digits) for e, gone in rows[own]]
        width, size = buckets.bound(width, WIDTHS), own.stop - own.start
        return batch(heard, size, width, settings.digits)

    def varied(
        self, e: Example, chance: np.random.Generator
    ) -> tuple[Example, list[slice]]:
        """An example with --augment, and the bands that are left out of it."""
        if not self.settings.augment:
            return e, []
        return e._replace(sound=audio.changed(chance, e.sound)), audio.left_out(chance)

    def strings(self, chance: np.random.Generator) -> Iterator[Example]:
        """As many as a batch has, all with as many digits."""
        n = 1 + int(chance.integers(self.settings.digits))
        return (self.draw(chance, n) for _ in range(self.settings.batch))

    def first(self, steps: int) -> list[Example]:
        """The strings of the first batches, none left out."""
        seeds = ([self.settings.seed, step] for step in range(steps))
        return [e for seed in seeds for e in self.strings(np.random.default_rng(seed))]


def batches(
    examples: list[Example], settings: Settings
) -> list[tuple[Batch, list[int]]]:
    """Every example once, as batches and the numbers of what is in them."""
    rows = [(features(e.sound, settings), e.digits) for e in examples]
    size, most = settings.batch, max(1, *(len(digits) for _, digits in rows))

    def collate(width: int, numbers: Sequence[int], B: int) -> Batch:
        return batch([rows[i] for i in numbers], B, width, most)

    widths = buckets.by_width([len(x) for x, _ in rows], WIDTHS).items()
    return buckets.once([Bucket(own, size, partial(collate, w)) for w, own in widths])


def load(settings: Settings, data_dir: Path | None) -> Data:
    if settings.data == "morse":
        draws, known, size = [of_senders] * 3, None, "senders without number"
        singles = strings(of_senders, 1, settings.strings, 1, 1)
    else:
        parts = split(recordings(data_dir), settings.speaker)
        draws = [partial(joined, by_speaker(part)) for part in parts]
        singles = [Example(r.sound, [r.digit]) for r in parts[2]]
        size, known = f"{len(parts[0]):,} recordings", [r.sound for r in parts[0]]
    train = Drawn(draws[0], settings)
    test = strings(draws[2], 2, settings.strings, 2, settings.digits)
    validation = strings(draws[1], 3, settings.strings // 4, 1, settings.digits)
    held_out, told = alignable(train.first(8), validation, test, settings)
    tests = {"single digits": singles, "strings": test}
    mark = lambda examples: digest([[len(e.sound), e.digits] for e in examples])
    digests = {name: mark(part) for name, part in tests.items()}
    digests["all"] = digest([size, known, mark(validation), digests])
    sizes = " and ".join(f"{len(part):,} {name}" for name, part in tests.items())
    about = (
        f"{title(settings)}: strings of 1 to {settings.digits} digits, {size} to train "
        f"on, to test {sizes}."
    )
    return Data(
        train=train,
        held_out=[batch for batch, _ in batches(held_out, settings)],
        tests=tests,
        digests=digests,
        about="\n".join([about, *told]),
        per_step=settings.batch,
        unit="string",
    )


def alignable(
    train: list[Example], held_out: list[Example], test: list[Example],
    settings: Settings,
) -> tuple[list[Example], list[str]]:  # fmt: skip
    """What of `held_out` CTC can align, and what to tell of the strings it cannot."""
    fit = lambda part: [e for e in part if fits(steps_of(e.sound, settings), e.digits)]
    kept = fit(held_out)
    if not kept or not fit(test):
        raise InputError(
            f"--stack {settings.stack}: too few steps for the digits of every string "
            "held out, or of every one to test; a lower --stack gives more"
        )
    named = {"first to train on": train, "held out": held_out, "to test": test}
    short = {name: len(part) - len(fit(part)) for name, part in named.items()}
    if not any(short.values()):
        return kept, []
    parts = (
        f"{short[name]:,} of the {len(own):,} {name}" for name, own in named.items()
    )
    return kept, [
        f"Strings with too few steps for their digits (--stack {settings.stack}): "
        f"{', '.join(parts)}. The loss leaves them out; the test does not."
    ]


def title(settings: Settings) -> str:
    if settings.speaker is None:
        return settings.data
    return f"{settings.data}, {settings.speaker} not in training"


def strings(
    draw: Callable[..., Example], seed: int, count: int, least: int, most: int
) -> list[Example]:
    """The same strings of `least` to `most` digits each time."""
    chance = np.random.default_rng([2**31, seed])  # which no --seed takes
    return [draw(chance, int(chance.integers(least, most + 1))) for _ in range(count)]


def of_senders(chance: np.random.Generator, n: int) -> Example:
    """A string of `n` digits in Morse code, of a sender of its own."""
    digits = chance.integers(0, 10, n).tolist()
    return Example(morse.sent(chance, digits), digits)


def by_speaker(part: list[Recording]) -> list[list[Recording]]:
    names = sorted({r.speaker for r in part})
    return [[r for r in part if r.speaker == name] for name in names]


def joined(
    speakers: list[list[Recording]], chance: np.random.Generator, n: int
) -> Example:
    """A string of `n` recordings of one speaker, with short pauses between them."""
    own = speakers[chance.integers(len(speakers))]
    found = [own[i] for i in chance.integers(0, len(own), n)]
    loudness = sum(float(np.std(r.sound)) for r in found) / n
    parts = []
    for r in found:
        pause = chance.standard_normal(round(RATE * chance.uniform(0.03, 0.2)))
        parts += [(ROOM * loudness * pause).astype(np.float32), r.sound]
    return Example(np.concatenate(parts[1:]), [r.digit for r in found])
