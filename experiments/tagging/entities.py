"""Entities that tags tell of: B-type, I-type and O, and the schemes with an end.

A span is read as seqeval does by default (Nakayama, 2018,
https://github.com/chakki-works/seqeval): one that no tag begins begins where its type
does, and one that no tag ends ends before what does not go on with it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SCHEMES = {"BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
AS = {"L": "E", "U": "S"}  # last and unit, as end and single


class Span(NamedTuple):
    kind: str
    start: int
    end: int  # behind the last word


def scheme(tags: Iterable[str]) -> str | None:
    """The scheme of tags such as B-PER and O; None if they are not of entities."""
    tags = set(tags)
    inner = tags - {"O"}
    if not inner or not all(re.fullmatch("[A-Z](-.+)?", tag) for tag in inner):
        return None
    # without types, tags are no more than letters: O has to be one of them
    if "O" not in tags and any(len(tag) == 1 for tag in inner):
        return None
    letters = {tag[0] for tag in inner}
    return next((name for name, own in SCHEMES.items() if letters <= {*own}), None)


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, in their order."""
    found: list[Span] = []
    kind, start = None, 0  # of what is open
    for i, tag in enumerate([*tags, "O"]):
        letter, own = AS.get(tag[0], tag[0]), tag[2:] or "_"
        if kind is not None and (letter not in "IE" or own != kind):
            found.append(Span(kind, start, i))
            kind = None
        if kind is None and letter != "O":
            kind, start = own, i
        if kind is not None and letter in "ES":
            found.append(Span(kind, start, i + 1))
            kind = None
    return found
