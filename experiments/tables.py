"""Tables and parallel files: rows of two columns that belong together.

`own` reads a table of the user's, whose columns and header are options, or are told
by the table; then it says what was taken for what.
"""

import csv
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.datasets import lines
from experiments.frame.errors import InputError

SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";"}
# what headers call the two columns of a table
NAMES = {
    "text": "text texts sentence sentences document review comment message tweet "
    "question content phrase utterance",
    "label": "label labels class category target sentiment intent rating polarity",
    "source": "source src input question q article document text english en german de "
    "french fr spanish es korean ko japanese ja chinese zh",
    "target": "target tgt trg output answer a headline summary translation english en "
    "german de french fr spanish es korean ko japanese ja chinese zh",
    "word": "word words token tokens form text",
    "tag": "tag tags label labels pos upos ner ner_tag ner_tags entity entities",
}


class Pair(NamedTuple):
    source: str
    target: str
    place: str  # file and line, to be told where it is wrong


def parallel(source: Path, target: Path) -> list[Pair]:
    """Two files, of which each line of the one is that of the other."""
    pairs = lines(source), lines(target)
    short, *counts = min(map(len, pairs)), *map(len, pairs)
    if counts[0] != counts[1]:
        raise InputError(
            f"{source} has {counts[0]} lines and {target} has {counts[1]}: "
            f"line {short + 1} has no pair"
        )
    rows = enumerate(zip(*pairs, strict=True), 1)
    return whole(Pair(*pair, f"{source}, line {i}") for i, pair in rows)


def table(
    path: Path,
    width: int,
    *,
    delimiter: str = "\t",
    header: bool = False,
    quoted: bool | None = None,
) -> list[tuple[list[str], str]]:
    """Rows of TSV or CSV of `width` fields or more, each with its place."""
    rows, line = [], 1
    # quotes are letters like others in tables of tabs, unless said otherwise
    quoted = delimiter != "\t" if quoted is None else quoted
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    text = [line + "\n" for line in lines(path)]
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        for row in reader:
            place, line = f"{path}, line {line}", reader.line_num + 1  # of its start
            if len(row) < width:
                raise InputError(f"{place}: {len(row)} columns, {width} expected")
            rows.append((row, place))
    except csv.Error as e:
        why = "a quote without its end" if "unexpected end" in str(e) else e
        raise InputError(f"{path}, line {line}: {why}") from e
    return rows[1:] if header else rows


def pairs_of_table(
    path: Path,
    source: int = 0,
    target: int = 1,
    *,
    delimiter: str = "\t",
    header: bool = False,
) -> list[Pair]:
    """Pairs in two columns of TSV or CSV, of which there may be more."""
    rows = table(path, max(source, target) + 1, delimiter=delimiter, header=header)
    return whole(Pair(row[source], row[target], place) for row, place in rows)


def labelled(path: Path, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """Lines of a label, a space and a text, as (text, label)."""
    rows = []
    for i, line in enumerate(lines(path, encoding), 1):
        label, _, text = line.partition(" ")
        if not text.strip():
            raise InputError(f"{path}, line {i}: no text after the label")
        rows.append((text, label))
    return rows


def whole(pairs: Iterable[Pair]) -> list[Pair]:
    found = []
    for pair in pairs:
        if not pair.source.strip() or not pair.target.strip():
            raise InputError(f"{pair.place}: an empty sentence")
        found.append(pair)
    return found


# tables of the user's


class Own(NamedTuple):
    rows: list[Pair]
    named: bool  # whether options or a header tell what the columns are


def own(
    path: Path,
    roles: tuple[str, str],
    *,
    columns: str | None = None,
    header: bool | None = None,
    separator: str | None = None,
) -> Own:
    """The two columns of a table that `roles` name, each row with its place.

    `columns` names all columns in their order, such as "label,text,_". Without it the
    header does, if it has names that are known; else there are two columns. Without
    `header` the first row is one if it names both.
    """
    separator = separator or separator_of(path)
    rows = table(path, 0, delimiter=SEPARATORS[separator])
    if not rows:
        return Own([], False)
    first, place = rows[0]
    width = max(2, len(first))
    quoted = "" if separator == "tab" else f", texts with a {separator} quoted"
    how = f"(a table of {separator}s{quoted}; see --separator)"
    for row, other in rows:
        if len(row) != width:
            raise InputError(f"{other}: {len(row)} columns, {width} expected {how}")
    pairs = named(first, roles)
    header = bool(pairs) if header is None else header
    at = pairs[0] if header and len(pairs) == 1 else None
    at = at if columns is None else places(columns, roles, width)
    if at is None and width != 2:
        names = ",".join([*roles, *"_" * (width - 2)])
        raise InputError(
            f"{place}: {width} columns, 2 expected; --columns tells which are meant, "
            f"such as {names}"
        )
    one, two = at or (0, 1)
    head = f"line 1 is a header, {short(', '.join(first))}" if header else "no header"
    print(
        f"{path}: {roles[0]} in column {one + 1}, {roles[1]} in column {two + 1} of "
        f"{width}; {head}",
        file=sys.stderr,
    )
    found = [Pair(row[one], row[two], place) for row, place in rows[header:]]
    return Own(found, at is not None)


def short(text: str) -> str:
    """In one line, and not all of a long one."""
    return textwrap.shorten(text, 80)


def separator_of(path: Path) -> str:
    """By the name of the file: commas in .csv, else tabs."""
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".xz")]
    return "comma" if suffixes[-1:] == [".csv"] else "tab"


def named(fields: Iterable[str], roles: tuple[str, str]) -> list[tuple[int, int]]:
    """The pairs of columns that may be the two by their names; none of no header."""
    names = [field.strip().lower() for field in fields]
    found = [[i for i, n in enumerate(names) if n in NAMES[r].split()] for r in roles]
    pairs = [(a, b) for a in found[0] for b in found[1] if a != b]
    # of two languages either may be the source, and the first is
    return [pair for pair in pairs if pair[0] < pair[1] or pair[::-1] not in pairs]


def places(columns: str, roles: tuple[str, str], width: int) -> tuple[int, int]:
    """The numbers of the two columns among the names of `width` columns."""
    names = [name.strip() for name in columns.split(",")]
    strange = [name for name in names if name not in (*roles, "_")]
    if strange or any(names.count(role) != 1 for role in roles):
        raise InputError(
            f"--columns {columns}: expected {roles[0]} and {roles[1]} once each, and _ "
            "for other columns, with commas between them"
        )
    if len(names) != width:
        raise InputError(f"--columns {columns}: the file has {width} columns")
    return names.index(roles[0]), names.index(roles[1])
