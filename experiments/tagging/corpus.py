"""Sentences with a tag for each word: of data sets, and of files of the user's."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import datasets
from experiments.conll import conll, conllu
from experiments.frame.errors import InputError
from experiments.tables import named, places
from experiments.tagging import source
from experiments.tagging.settings import (
    ENTITIES,
    OF_COLUMNS,
    PARTS_OF_SPEECH,
    Settings,
)

PARTS = ("train", "validation", "test")
FILES = {
    "ud_en_ewt": [f"en_ewt-ud-{part}.conllu" for part in ("train", "dev", "test")],
    "ud_ko_gsd": [f"ko-gsd-ud-{part}.conllu" for part in ("train", "dev", "test")],
    "ud_ko_kaist": [f"kaist.{part}.tsv" for part in ("train", "dev", "test")],
    "wnut17": ["wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"],
    "kmou_ner": ["ner.train", "ner.dev", "ner.test"],
}
MARK = "-DOCSTART-"
ROLES = ("word", "tag")


class Sentence(NamedTuple):
    words: Sequence[str]  # of source its characters, a str
    tags: list[str]


def sentences(settings: Settings, data_dir: Path | None) -> list[list[Sentence]]:
    """Training, validation and test sentences."""
    name = settings.data
    more = [settings.dev, settings.test]
    if (settings.dev is None) != (settings.test is None):
        raise InputError("--dev and --test: both are needed, or neither")
    if settings.dev is not None and name in ("python", *FILES):
        raise InputError("--dev, --test: belong to a file of one's own in --data")
    if name == "python":
        found = source.modules()
        return [[Sentence(*text) for text in found[part]] for part in PARTS]
    if name in FILES:
        return [read(name, datasets.fetch(name, f, data_dir)) for f in FILES[name]]
    path = Path(name)
    if not path.is_file():
        choices = ", ".join(("python", *PARTS_OF_SPEECH, *ENTITIES))
        raise InputError(f"--data {path}: neither a file nor one of {choices}")
    rows = own(path, settings)
    if settings.dev is None:
        if len(rows) < 10:
            raise InputError(f"--data {path}: {len(rows)} sentences, 10 needed")
        return [*datasets.split(rows, 0.1, 0, lambda s: tuple(s.words))]
    parts = [rows, *(own(Path(p), settings) for p in more if p is not None)]
    for part, file in zip(parts, (name, *more), strict=True):
        if not part:
            raise InputError(f"{file}: no sentence there")
    return parts


def is_conllu(path: Path) -> bool:
    name = path.name.lower()
    return name.removesuffix(".gz").removesuffix(".xz").endswith(".conllu")


def read(name: str, path: Path) -> list[Sentence]:
    """The sentences of a file of a data set."""
    if is_conllu(path):
        return of_rows([token[:2] for token in row] for row in conllu(path))
    if name == "kmou_ner":
        # the sentence itself stands before its words, and once more with marks
        found = of_rows(conll(path, (1, -1), comments=(";", "$")))
        return [Sentence(words, typed(tags)) for words, tags in found]
    comments = ("# ",) if name == "ud_ko_kaist" else ()
    return of_rows(conll(path, (0, 1), comments=comments))


def own(path: Path, settings: Settings) -> list[Sentence]:
    """The sentences of a file of the user's."""
    if is_conllu(path):
        for name in OF_COLUMNS:
            if getattr(settings, name) is not None:
                raise InputError(f"--{name}: changes nothing with a .conllu file")
        return read("", path)
    columns, width, comments = (0, -1), 0, settings.comments
    if settings.columns is not None:
        width = len(settings.columns.split(","))
        columns = places(settings.columns, ROLES, width)
    rows = conll(
        path,
        columns,
        width=width,
        comments=None if comments is None else tuple(filter(None, [comments])),
        mark=MARK if settings.mark is None else settings.mark or None,
    )
    first = rows[0][0] if rows else ()
    header = bool(named(first, ROLES)) if settings.header is None else settings.header
    if first and header:
        print(f"{path}: its first row is a header, {', '.join(first)}", file=sys.stderr)
        rows[0] = rows[0][1:]
    if numbered(rows):
        raise InputError(
            f"{path}: the word of each row is its number in the sentence; --columns "
            "tells where the words are, such as _,word,tag, and CoNLL-U is read from "
            "a file that ends in .conllu"
        )
    return of_rows(rows)


def numbered(rows: list[list[tuple[str, ...]]]) -> bool:
    """Whether the words of all sentences are 1, 2 and so on."""
    words = [[token[0] for token in row] for row in rows]
    return any(words) and all(
        row == [str(i) for i in range(1, len(row) + 1)] for row in words
    )


def of_rows(rows: Iterable[Sequence[Sequence[str]]]) -> list[Sentence]:
    """Sentences of rows of words and their tags."""
    pairs = [zip(*row, strict=True) for row in rows if row]
    return [Sentence(list(words), list(tags)) for words, tags in pairs]


def typed(tags: Iterable[str]) -> list[str]:
    """B_PS as B-PS, and the I after it, which has no type of its own, as I-PS."""
    found, kind = [], ""
    for tag in tags:
        kind = tag[2:] if tag[:2] == "B_" else kind
        found.append({"B": f"B-{kind}", "I": f"I-{kind}"}.get(tag[0], tag))
    return found
