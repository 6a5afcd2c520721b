"""CoNLL files: a word a line with its columns, an empty line after each sentence.

What is left out of a file, or looks as if it were no word, is told with its number of
lines; what cannot be read is an error that names the line.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.datasets import lines, note
from experiments.frame.errors import InputError

# a word, several words written as one, or a word that is not written
ID = re.compile(r"[1-9][0-9]*|([1-9][0-9]*)-([1-9][0-9]*)|[0-9]+\.[1-9][0-9]*")


class Row(NamedTuple):
    line: int
    text: str
    fields: list[str]


def row_of(line: int, text: str) -> Row:
    """A line in its columns, between tabs if it has any, else between spaces."""
    # a tab inside a line of spaces, and the reverse, are met in real files
    # and other spaces than " " are parts of tokens
    inner = text.strip(" \t")
    fields = re.split("\t" if "\t" in inner else " +", inner)
    return Row(line, text, [field.strip(" ") for field in fields])


def conll(
    path: Path,
    columns: Sequence[int] = (0, -1),
    *,
    width: int = 0,
    comments: tuple[str, ...] | None = None,
    mark: str | None = None,
) -> list[list[tuple[str, ...]]]:
    """Sentences, each token the columns asked for.

    All lines have `width` columns, or as many as the first. Lines that start with one
    of `comments` are left out; without it, lines that start with # and have another
    number of columns. So are lines that start with `mark`, which end a sentence as an
    empty line does.
    """
    rows = [row_of(i, text) for i, text in enumerate(lines(path), 1)]
    marked = lambda row: mark is not None and row.text.startswith(mark)
    # what is surely neither a comment nor a mark tells how many columns there are
    apart = ("#",) if comments is None else comments
    surely = lambda row: not marked(row) and not row.text.startswith(apart)
    counts = (len(row.fields) for row in rows if any(row.fields) and surely(row))
    least = max(max(columns) + 1, -min(columns), len(set(columns)))
    width = width or max(next(counts, 0), least)
    sentences, tokens = [], []
    left: dict[str, list[int]] = {"marks of documents": [], "comments": []}
    for row in [*rows, row_of(len(rows) + 1, "")]:
        place = f"{path}, line {row.line}"
        if marked(row) or not any(row.fields):
            left["marks of documents"] += [row.line] if marked(row) else []
            sentences += [tokens] if tokens else []
            tokens = []
            continue
        if is_comment(row, comments, width, first=not tokens, place=place):
            left["comments"].append(row.line)
            continue
        if len(row.fields) != width:
            raise InputError(f"{place}: {len(row.fields)} columns, {width} expected")
        tokens.append(tuple(row.fields[c] for c in columns))
        if not all(tokens[-1]):
            raise InputError(f"{place}: an empty column")
    for what, numbers in left.items():
        note(path, numbers, f"{what}, left out")
    return sentences


def is_comment(
    row: Row, comments: tuple[str, ...] | None, width: int, *, first: bool, place: str
) -> bool:
    """Whether a line is a comment; `first` if it stands where a sentence starts."""
    if comments is not None:
        return row.text.startswith(comments)
    if not row.text.startswith("#") or len(row.fields) != width:
        return row.text.startswith("#")
    if first and row.text.startswith("# "):  # after a word, or before a tab, it is one
        raise InputError(
            f"{place}: a comment, or the word #? --comments '#' leaves out the lines "
            "that start so, --comments '' none"
        )
    return False


def conllu(path: Path) -> list[list[tuple[str, ...]]]:
    """Sentences of CoNLL-U as (FORM, UPOS, XPOS) of each syntactic word."""
    sentences, tokens, before = [], [], 0
    odd: dict[str, list[int]] = {
        "words whose FORM is _": [],
        "words whose UPOS is _": [],
        "comments within a sentence": [],
        "words whose ID does not follow the one before": [],
    }
    unformed, untagged, inside, jumps = odd.values()
    for i, line in enumerate([*lines(path), ""], 1):
        if line.startswith("#"):
            inside += [i] if tokens else []
            continue
        if not line.strip(" \t"):
            sentences += [tokens] if tokens else []
            tokens, before = [], 0
            continue
        number, form, upos, xpos = columns_of_conllu(line, f"{path}, line {i}")
        if not number.isdecimal():
            continue
        jumps += [i] if int(number) != before + 1 else []
        unformed += [i] if form == "_" else []
        untagged += [i] if upos == "_" else []
        tokens.append((form, upos, xpos))
        before = int(number)
    for what, numbers in odd.items():
        note(path, numbers, what)
    return sentences


def columns_of_conllu(line: str, place: str) -> tuple[str, str, str, str]:
    """ID, FORM, UPOS and XPOS of a line that has ten columns."""
    fields = [field.strip(" ") for field in line.split("\t")]
    if len(fields) != 10:
        raise InputError(f"{place}: {len(fields)} columns between tabs, 10 expected")
    number, form, _, upos, xpos, *_ = fields
    found = ID.fullmatch(number)
    if not found or (found[1] and int(found[1]) > int(found[2])):
        raise InputError(
            f"{place}: the ID {ascii(number)[1:-1]}: expected a number, a range such "
            "as 1-2, or an empty node such as 1.1"
        )
    for name, field in (("FORM", form), ("UPOS", upos)):
        if not field:
            raise InputError(f"{place}: an empty {name}")
    return number, form, upos, xpos
