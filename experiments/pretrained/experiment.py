"""The two commands: `pronounce` and `speech`."""

import sys
from pathlib import Path

from experiments.frame.errors import InputError
from experiments.frame.files import make_folder
from experiments.frame.page import save_figure
from experiments.pretrained import pronunciation, voice
from experiments.pretrained.figure import speech_figure
from experiments.speech.audio import read_wav


def pronounce(text: list[str]) -> int:
    """Writes each word and its phonemes."""
    words, left = pronunciation.words(" ".join(text))
    if not words:
        raise InputError("no word of English letters in the text")
    speller = pronunciation.load()
    if left:
        signs = " ".join(left)
        print(f"left out, for the network reads letters only: {signs}", file=sys.stderr)
    for word, phonemes in zip(words, pronunciation.say(speller, words), strict=True):
        print(f"{word}\t{' '.join(phonemes)}")
    return 0


def speech(file: Path, out: Path) -> int:
    """Writes when there is speech in a file, and draws how sure the network is."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: the name of a figure ends in .png")
    samples = read_wav(file, voice.RATE)
    chances = voice.chances(voice.load(), samples)
    make_folder(out.parent)
    save_figure(speech_figure(samples, chances), out)
    for start, end in (found := voice.stretches(chances)):
        print(f"{start:.2f}\t{end:.2f}")
    spoken = sum(end - start for start, end in found)
    seconds = len(samples) / voice.RATE
    print(
        f"{file}: {spoken:.1f} of {seconds:.1f} seconds are speech; {out}",
        file=sys.stderr,
    )
    return 0
