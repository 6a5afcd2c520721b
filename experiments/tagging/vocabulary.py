"""Words, their letters and tags as numbers."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.tagging.corpus import Sentence
from experiments.tagging.settings import Settings

PAD, UNKNOWN = 0, 1


class Vocabulary(NamedTuple):
    """Words and letters from UNKNOWN + 1 on, tags from 0 on."""

    words: list[str]
    letters: list[str]
    tags: list[str]


def plain(word: str, settings: Settings) -> str:
    """The word as the vocabulary has it; case is for the letters to tell."""
    return word if settings.data == "python" else word.lower()


def spelling(word: str, settings: Settings) -> str:
    """The letters that are read: of a long word its beginning and its end."""
    n = settings.longest_word
    return word if len(word) <= n else word[: n - n // 2] + word[len(word) - n // 2 :]


def parts_of(letter: str, settings: Settings) -> str:
    """The letter, and with `jamo` what it is made of, such as 한 of ᄒ, ᅡ and ᆫ."""
    made = unicodedata.normalize("NFD", letter) if settings.jamo else letter
    return letter if made == letter else letter + made[: width_of(settings) - 1]


def width_of(settings: Settings) -> int:
    """Numbers for a letter."""
    return 4 if settings.jamo else 1


def known(train: list[Sentence], settings: Settings) -> tuple[list[str], list[str]]:
    """Words met `least` times, and letters met in as many distinct words."""
    met = Counter(w for s in train for w in s.words)
    words: Counter[str] = Counter()
    for form, n in met.items():
        words[plain(form, settings)] += n
    forms = sorted(met) if settings.letters else []
    letters = Counter(
        part
        for form in forms
        for part in {p for c in spelling(form, settings) for p in parts_of(c, settings)}
    )
    often = lambda counts: [
        x for n, x in sorted((-n, x) for x, n in counts.items()) if -n >= settings.least
    ]
    return often(words), often(letters)


class Encoded(NamedTuple):
    words: np.ndarray  # (T,)
    forms: np.ndarray  # (T,) rows of the table of letters
    tags: np.ndarray  # (T,)


class Letters(NamedTuple):
    """The letters of all distinct words; row 0 is of none."""

    parts: np.ndarray  # (N, L, P)
    lengths: np.ndarray  # (N,)


def encode(
    rows: Sequence[Sentence], vocabulary: Vocabulary, settings: Settings
) -> tuple[list[Encoded], Letters]:
    """Sentences as numbers. Tags may be left out."""
    number = lambda names, first: {name: i for i, name in enumerate(names, first)}
    words = number(vocabulary.words, UNKNOWN + 1)
    tags = number(vocabulary.tags, 0)
    forms: dict[str, int] = {}
    numbers = lambda values: np.array(values, np.int32)
    own = [
        numbers([forms.setdefault(w, len(forms) + 1) for w in r.words]) for r in rows
    ]
    ids = numbers([PAD, *(words.get(plain(form, settings), UNKNOWN) for form in forms)])
    found = [
        Encoded(ids[form], form, numbers([tags[t] for t in row.tags] or 0 * form))
        for form, row in zip(own, rows, strict=True)
    ]
    if not settings.letters:
        forms = {}
    letters = number(vocabulary.letters, UNKNOWN + 1)
    shape = len(forms) + 1, settings.longest_word, width_of(settings)
    table = Letters(np.full(shape, PAD, np.int32), np.zeros(len(forms) + 1, np.int32))
    for form, row in forms.items():
        spelt = spelling(form, settings)
        table.lengths[row] = len(spelt)
        for i, letter in enumerate(spelt):
            parts = [letters.get(p, UNKNOWN) for p in parts_of(letter, settings)]
            table.parts[row, i, : len(parts)] = parts
    return found, table
