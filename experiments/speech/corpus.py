"""Strings of digits as sound: recordings joined, or Morse code."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import fit
from experiments.errors import InputError, refuse
from experiments.speech import morse
from experiments.speech.audio import RATE, read_wav
from experiments.speech.settings import Settings

NAME = re.compile(r"(\d)_([^_]+)_(\d+)(?:\.wav)?")
TEST, VALIDATION = range(5), range(5, 7)  # recordings of each digit and speaker
ROOM = 0.01  # noise between recordings, to their mean loudness


class Recording(NamedTuple):
    sound: np.ndarray  # (n,), between -1 and 1
    digit: int
    speaker: str
    number: int


class Example(NamedTuple):
    sound: np.ndarray
    digits: list[int]


class Corpus(NamedTuple):
    draw: Callable[[np.random.Generator, int], Example]  # a training string of n digits
    validation: list[Example]
    tests: dict[str, list[Example]]
    size: str  # how much there is to train on
    digests: dict[str, str]  # of all, and of each test


def load(settings: Settings, data_dir: Path | None) -> Corpus:
    if settings.data == "morse":
        given = {"speaker": settings.speaker, "data_dir": data_dir}
        refuse(given, given, "with the data morse")
        draw, known = of_senders, None
        singles = strings(draw, 1, settings.strings, 1, 1)
        test = strings(draw, 2, settings.strings, 2, settings.digits)
        validation = strings(draw, 3, settings.strings // 4, 1, settings.digits)
        size = "senders without number"
    else:
        parts = split(recordings(data_dir), settings.speaker)
        draws = [partial(joined, by_speaker(part)) for part in parts]
        singles = [Example(r.sound, [r.digit]) for r in parts[2]]
        test = strings(draws[2], 2, settings.strings, 2, settings.digits)
        validation = strings(draws[1], 3, settings.strings // 4, 1, settings.digits)
        draw, size = draws[0], f"{len(parts[0]):,} recordings"
        known = [r.sound for r in parts[0]]
    tests = {"single digits": singles, "strings": test}
    mark = lambda examples: fit.digest([[len(e.sound), e.digits] for e in examples])
    digests = {name: mark(part) for name, part in tests.items()}
    digests["all"] = fit.digest([size, known, mark(validation), digests])
    return Corpus(draw, validation, tests, size, digests)


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


def split(
    found: list[Recording], speaker: str | None
) -> tuple[list[Recording], list[Recording], list[Recording]]:
    """Training, validation and test recordings: the official test, or a speaker."""
    names = sorted({r.speaker for r in found})
    if speaker is not None and speaker not in names:
        known = ", ".join(names)
        raise InputError(f"--speaker {speaker}: the recordings are of {known}")
    if speaker is not None and len(names) == 1:
        raise InputError(f"--speaker {speaker}: there is no other to train on")
    if speaker is None:
        is_test = lambda r: r.number in TEST
    else:
        is_test = lambda r: r.speaker == speaker
    test = [r for r in found if is_test(r)]
    rest = [r for r in found if not is_test(r)]
    validation = [r for r in rest if r.number in VALIDATION]
    train = [r for r in rest if r.number not in VALIDATION]
    for part, what in ((test, "0 to 4"), (validation, "5 to 6"), (train, "7 and up")):
        if not part:
            raise InputError(f"--data-dir: no recording with a number of {what} there")
    return train, validation, test


def recordings(data_dir: Path | None) -> list[Recording]:
    """All that is in a folder: sound files, or one packed file of them."""
    source = "as in the repository Jakobovski/free-spoken-digit-dataset"
    if data_dir is None:
        raise InputError(f"fsdd: --data-dir takes a folder with recordings, {source}")
    folders = [data_dir / "fsdd", data_dir]
    for folder in [*folders, *(folder / "recordings" for folder in folders)]:
        paths = sorted(folder.glob("*.wav"))
        found = [(m, p) for p in paths if (m := NAME.fullmatch(p.name))]
        if found:
            return [of_name(m, read_wav(p)) for m, p in found]
        if (folder / "fsdd.npz").is_file():
            return packed(folder / "fsdd.npz")
    raise InputError(
        f"--data-dir {data_dir}: no recordings there, {{digit}}_{{speaker}}_{{number}}"
        f".wav {source}"
    )


def of_name(match: Any, sound: np.ndarray) -> Recording:
    digit, speaker, number = match.groups()
    return Recording(sound, int(digit), speaker, int(number))


def packed(path: Path) -> list[Recording]:
    """Recordings in one file: all samples, where each starts, and the names."""
    try:
        with np.load(path) as file:
            audio, offsets, names = (file[k] for k in ("audio", "offsets", "names"))
        sounds = np.split(audio.astype(np.float32) / 32768, offsets[1:-1])
        matches = [NAME.fullmatch(str(name)) for name in names]
        if not all(matches) or not all(map(len, sounds)):
            raise ValueError
        pairs = zip(matches, sounds, strict=True)
        return [of_name(match, sound) for match, sound in pairs]
    except (OSError, EOFError, KeyError, ValueError) as e:
        raise InputError(f"{path}: not the recordings in one file") from e
