"""Data sets: where they come from, under which licence, and the formats they have.

`fetch` gives the path of one file, from a folder of the user's or downloaded once
and checked; the readers return what is in it, or say which line of it is wrong.
"""

import csv
import gzip
import logging
import lzma
import random
import re
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests

from experiments.frame.errors import InputError

# what pooch tells of its housekeeping is not for the user of a command
pooch.get_logger().setLevel(logging.ERROR)


class Dataset(NamedTuple):
    licence: str
    url: str  # folder that holds the files; empty if they are made of others
    files: dict[str, str]  # path in it: sha256


with open(Path(__file__).with_name("datasets.toml"), "rb") as file:
    DATASETS = {name: Dataset(**known) for name, known in tomllib.load(file).items()}


def fetch(dataset: str, name: str, data_dir: Path | None = None) -> Path:
    """The path of one file: in the user's folder if given, else downloaded once."""
    if data_dir is not None:
        folders = (data_dir / dataset, data_dir)
        bare = name.removesuffix(".gz").removesuffix(".xz")
        names = (name, bare, f"{bare}.gz", f"{bare}.xz")
        paths = [folder / n for folder in folders for n in names]
        found = [path for path in paths if path.is_file()]
        if not found:
            raise InputError(f"--data-dir {data_dir}: no {bare} of {dataset} there")
        return found[0]
    known = DATASETS[dataset]
    if not known.url:
        raise InputError(
            f"{dataset}: cannot be downloaded as a file; --data-dir takes a folder "
            f"with {name}"
        )
    folder = Path(pooch.os_cache("jaxseq")) / dataset
    if not (folder / name).exists():
        line = f"Downloading {name} of {dataset}. Licence: {known.licence}."
        print(line, file=sys.stderr)
    url = f"{known.url}/{name}"
    try:
        store = pooch.create(
            path=folder,
            base_url=known.url + "/",
            registry={name: f"sha256:{known.files[name]}"},
        )
        downloader: Any = pooch.HTTPDownloader(timeout=30)
        return Path(store.fetch(name, downloader=downloader))
    except requests.RequestException as e:
        code = getattr(e.response, "status_code", None)
        why = f"HTTP {code}" if code else type(e).__name__
        raise InputError(
            f"{url}: the download failed ({why}); --data-dir takes a folder with "
            "the file"
        ) from e
    except ValueError as e:
        raise InputError(f"{url}: not the file expected (its sha256 differs)") from e
    except OSError as e:
        raise InputError(f"{folder}: cannot write there: {e.strerror}") from e


def read(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file, plain or packed as .gz or .xz."""
    openers = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with openers.get(path.suffix, open)(path, "rb") as file:
            data = file.read()
    except OSError as e:
        raise InputError(f"{path}: {e.strerror or e}") from e
    except (EOFError, lzma.LZMAError, zlib.error) as e:
        raise InputError(f"{path}: the file is damaged ({e})") from e
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not {encoding} text") from e


def lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Plain text: a sentence a line. Only line feeds end lines."""
    text = read(path, encoding)
    rows = [line.removesuffix("\r") for line in text.split("\n")]
    return rows[:-1] if rows[-1] == "" else rows


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
    return _whole(Pair(*pair, f"{source}, line {i}") for i, pair in rows)


def table(
    path: Path,
    width: int,
    *,
    delimiter: str = "\t",
    header: bool = False,
    quoted: bool | None = None,
    more: bool = True,
) -> list[tuple[list[str], str]]:
    """Rows of TSV or CSV of `width` fields, or `more`, each with its place."""
    rows, line = [], 1
    # quotes are letters like others in tables of tabs, unless said otherwise
    quoted = delimiter == "," if quoted is None else quoted
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    text = [line + "\n" for line in lines(path)]
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        for row in reader:
            place, line = f"{path}, line {line}", reader.line_num + 1  # of its start
            if len(row) < width or (len(row) > width and not more):
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
    more: bool = True,
) -> list[Pair]:
    """Pairs in two columns of TSV or CSV, of which there may be `more`."""
    width = max(source, target) + 1
    rows = table(path, width, delimiter=delimiter, header=header, more=more)
    return _whole(Pair(row[source], row[target], place) for row, place in rows)


def labelled(path: Path, encoding: str = "utf-8") -> list[tuple[str, str]]:
    """Lines of a label, a space and a text, as (text, label)."""
    rows = []
    for i, line in enumerate(lines(path, encoding), 1):
        label, _, text = line.partition(" ")
        if not text.strip():
            raise InputError(f"{path}, line {i}: no text after the label")
        rows.append((text, label))
    return rows


def conll(
    path: Path, columns: Sequence[int] = (0, -1), *, comments: tuple[str, ...] = ()
) -> list[list[tuple[str, ...]]]:
    """Sentences between empty lines, each token a line of columns; those asked for.

    Lines that start with one of `comments` are left out.
    """
    sentences, tokens = [], []
    for i, line in enumerate([*lines(path), ""], 1):
        if line.startswith(comments):
            continue
        # a tab inside a line of spaces, and the reverse, are met in real files
        # and other spaces than " " are parts of tokens
        fields = re.split(
            "\t" if "\t" in line.strip(" \t") else " +", line.strip(" \t")
        )
        fields = [field.strip(" ") for field in fields]
        if not any(fields):
            sentences += [tokens] if tokens else []
            tokens = []
            continue
        width = max(max(columns) + 1, -min(columns), len(set(columns)))
        if len(fields) < width:
            place = f"{path}, line {i}"
            raise InputError(f"{place}: {len(fields)} columns, {width} expected")
        tokens.append(tuple(fields[c] for c in columns))
    return sentences


def conllu(path: Path) -> list[list[tuple[str, ...]]]:
    """Sentences of CoNLL-U as (FORM, UPOS, XPOS) of each syntactic word."""
    rows = conll(path, (0, 1, 3, 4), comments=("#",))
    word = lambda token: token[0].isdigit()  # neither ranges nor empty nodes
    return [[token[1:] for token in sentence if word(token)] for sentence in rows]


def digits() -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Handwritten digits that scikit-learn brings: images and what they show.

    `(1797, 8, 8)` from 0 to 1, `(1797,)`, and the numbers of those to train on, of
    those held out, and of those to test.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    pixels, shown = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8)
    drawn = np.random.default_rng(0).permutation(len(images))
    return images, shown, (drawn[:1257], drawn[1257:1437], drawn[1437:])


def split(
    rows: Sequence[Any], share: float, seed: int, of: Callable[[Any], Any]
) -> tuple[list, list, list]:
    """Training, validation and test rows, drawn by chance; both latter a `share`.

    Rows of which `of` gives the same, such as one source with several targets, stay
    together.
    """
    groups: dict[Any, list] = {}
    for row in rows:
        groups.setdefault(of(row), []).append(row)
    drawn = list(groups.values())
    random.Random(seed).shuffle(drawn)
    n = max(1, round(share * len(rows)))
    parts: tuple[list, list, list] = [], [], []
    for group in drawn:
        part = next((p for p in parts[1:] if len(p) < n), parts[0])
        part += group
    if not all(parts):
        raise InputError(
            f"{len(groups)} different rows among {len(rows)}: too few to train, to "
            "hold out and to test"
        )
    return parts


def _whole(pairs: Iterable[Pair]) -> list[Pair]:
    found = []
    for pair in pairs:
        if not pair.source.strip() or not pair.target.strip():
            raise InputError(f"{pair.place}: an empty sentence")
        found.append(pair)
    return found
