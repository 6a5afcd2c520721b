"""Texts with their labels, of data sets and of files."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from experiments import datasets, tables
from experiments.classification.settings import IMAGES, OF_TABLES, TEXTS, Settings
from experiments.frame.errors import InputError

Rows = list[tuple[str, str]]  # texts and labels


def texts(settings: Settings, data_dir: Path | None) -> list[Rows]:
    """Training, validation and test texts with their labels."""
    name = settings.data
    fetch = lambda file: datasets.fetch(
        name[:3] if "sst" in name else name, file, data_dir
    )
    sentence = lambda row: row[0]
    if name in ("sst2", "sst5"):
        kind = "binary" if name == "sst2" else "fine"
        files = (f"stsa.{kind}.{part}" for part in ("train", "dev", "test"))
        return [tables.labelled(fetch(file)) for file in files]
    if name == "trec":
        whole, test = (
            tables.labelled(fetch(f"TREC.{part}.all"), "cp1252")
            for part in ("train", "test")
        )
        return [*held_out(whole, 500), test]
    if name == "nsmc":
        whole, test = (
            [
                (text, label)
                for (_, text, label), _ in tables.table(
                    fetch(f"ratings_{part}.txt"), 3, header=True, quoted=True
                )
            ]
            for part in ("train", "test")
        )
        return [*held_out(whole, 5000), test]
    if name == "mr":  # no official split: a tenth each to validate and to test
        rows = [
            (text, label)
            for label in ("neg", "pos")
            for text in datasets.lines(fetch(f"rt-polarity.{label}"), "cp1252")
        ]
        return [*datasets.split(rows, 0.1, 0, sentence)]
    path = Path(name)
    if not path.is_file():
        known = ", ".join((*IMAGES, *TEXTS))
        raise InputError(f"--data {path}: neither a file nor one of {known}")
    rows = own_texts(path, settings)
    return [*datasets.split(rows, 0.1, 0, sentence)]


def own_texts(path: Path, settings: Settings) -> Rows:
    """The texts and labels of a table of the user's."""
    how: Any = {name: getattr(settings, name) for name in OF_TABLES}
    found, named = tables.own(path, ("text", "label"), **how)
    for text, label, place in found:
        if not text.strip() or not label.strip():
            raise InputError(f"{place}: an empty text or label")
    rows = [(text, label.strip()) for text, label, _ in found]
    if len(rows) < 10:
        raise InputError(f"--data {path}: {len(rows)} texts, at least 10 needed")
    texts, labels = (Counter(row[side] for row in rows) for side in (0, 1))
    if not named and len(labels) > len(texts):
        raise InputError(
            f"{path}: {len(texts)} different texts in column 1 and {len(labels)} "
            "different labels in column 2: if the label stands first, --columns "
            "label,text; if not, --columns text,label"
        )
    once = [label for label, n in labels.items() if n == 1]
    if settings.header is None and once == [rows[0][1]]:
        raise InputError(
            f"{found[0].place}: no other row has the label {tables.short(once[0])}: if "
            "this is a header, --header; if not, --no-header"
        )
    return rows


def held_out(rows: Rows, n: int) -> tuple[Rows, Rows]:
    """All but `n` rows drawn by chance, and these."""
    drawn = random.Random(0).sample(rows, len(rows))
    return drawn[n:], drawn[:n]
