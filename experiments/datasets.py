"""Data sets: where they come from, under which licence, and their text.

`fetch` gives the path of one file, from a folder of the user's or downloaded once
and checked; `read` and `lines` return its text, or say which line of it is wrong.
Tables are read in tables.py, CoNLL files in conll.py.
"""

import gzip
import logging
import lzma
import random
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests

from experiments.frame.errors import InputError

# what pooch tells of its housekeeping is not for the user of a command
pooch.get_logger().setLevel(logging.ERROR)
MARK = "\ufeff"  # of the byte order


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
        return _without_marks(path, data.decode(encoding))
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not {encoding} text") from e


def _without_marks(path: Path, text: str) -> str:
    """The text without byte order marks where it, or a file joined to it, starts."""
    text = text.removeprefix(MARK)
    if MARK not in text:
        return text
    rows = [*enumerate(text.split("\n"), 1)]
    starts = [i for i, row in rows if row.startswith(MARK)]
    note(path, starts, "byte order marks at the start of lines, left out")
    kept = [i for i, row in rows if MARK in row.removeprefix(MARK)]
    note(path, kept, "lines with a byte order mark in them, kept")
    return "\n".join(row.removeprefix(MARK) for _, row in rows)


def note(path: Path, numbers: Sequence[int], what: str) -> None:
    """Tells, if there are such lines of a file, how many and the first of them."""
    if numbers:
        first = f"(the first in line {numbers[0]})"
        print(f"{path}: {what}: {len(numbers):,} {first}", file=sys.stderr)


def lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Plain text: a sentence a line. Only line feeds end lines."""
    text = read(path, encoding)
    rows = [line.removesuffix("\r") for line in text.split("\n")]
    return rows[:-1] if rows[-1] == "" else rows


def typed() -> Iterator[str]:
    """Lines as they are typed."""
    for i, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode("utf-8-sig" if i == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise InputError(f"line {i}: not utf-8 text") from e
        yield text.removesuffix("\n").removesuffix("\r")


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
