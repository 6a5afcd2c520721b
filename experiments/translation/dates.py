"""Dates as people of twenty languages write them, and in ISO 8601.

The formats are those of Unicode CLDR, as the package Babel brings them.
"""

import datetime
import random

from babel.dates import format_date, format_skeleton

from experiments.tables import Pair

LANGUAGES = (
    "cs da de el en es fi fr hu it ja ko nl pl pt ru sv tr uk zh".split()
)  # fmt: skip
FORMATS = ("medium", "long", "full")
SKELETONS = ("yMMMd", "yMMMEd", "yMMMMd")
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)


def written(date: datetime.date, language: str, how: str) -> str:
    if how in FORMATS:
        return format_date(date, how, locale=language)
    return format_skeleton(how, date, locale=language)


def load(*, days: int = 20_000, test_days: int = 1_000) -> tuple:
    """Training, validation and test pairs, always the same; no day is in two parts."""
    chance = random.Random(0)
    span = (LAST - FIRST).days + 1
    chosen = chance.sample(range(span), days + 2 * test_days)

    def pairs(numbers: list[int]) -> list[Pair]:
        found = []
        for n in numbers:
            date = FIRST + datetime.timedelta(n)
            language = chance.choice(LANGUAGES)
            how = chance.choice(FORMATS + SKELETONS)
            text = written(date, language, how)
            found.append(Pair(text, date.isoformat(), f"{language}, {how}"))
        return found

    return tuple(
        pairs(part)
        for part in (
            chosen[2 * test_days :],
            chosen[:test_days],
            chosen[test_days : 2 * test_days],
        )
    )
