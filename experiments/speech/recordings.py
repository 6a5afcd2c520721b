"""Recordings of spoken digits: read from a folder, and split."""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.frame.errors import InputError
from experiments.speech.audio import read_wav

NAME = re.compile(r"(\d)_([^_]+)_(\d+)(?:\.wav)?", re.ASCII | re.IGNORECASE)
TEST, VALIDATION = range(5), range(5, 7)  # recordings of each digit and speaker


class Recording(NamedTuple):
    sound: np.ndarray  # (n,), between -1 and 1
    digit: int
    speaker: str
    number: int


def recordings(data_dir: Path | None) -> list[Recording]:
    """All that is in a folder: sound files, or one packed file of them."""
    source = "as in the repository Jakobovski/free-spoken-digit-dataset"
    if data_dir is None:
        raise InputError(f"fsdd: --data-dir takes a folder with recordings, {source}")
    folders = [data_dir / "fsdd", data_dir]
    for folder in [*folders, *(folder / "recordings" for folder in folders)]:
        paths = sorted(p for p in folder.glob("*") if p.suffix.lower() == ".wav")
        found = [(m, p) for p in paths if (m := NAME.fullmatch(p.name))]
        if found:
            if others := [p.name for p in paths if not NAME.fullmatch(p.name)]:
                what = f"{len(others):,} (the first is {others[0]})"
                print(f"{folder}: sound files of other names, left out: {what}",
                      file=sys.stderr)  # fmt: skip
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
