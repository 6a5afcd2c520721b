"""A data set as tokens: its splits, its two vocabularies, what is too long."""

import random
from pathlib import Path
from typing import NamedTuple

from experiments import data
from experiments.data import Pair
from experiments.errors import InputError
from experiments.translation import dates, vocabulary
from experiments.translation.batches import Example
from experiments.translation.settings import Settings
from experiments.translation.vocabulary import Vocabulary

MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
MULTI30K_TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


class Corpus(NamedTuple):
    vocabularies: tuple[Vocabulary, Vocabulary]  # of sources and targets
    train: list[Example]
    validation: list[Example]
    test: list[Pair]


def load_pairs(
    settings: Settings, data_dir: Path | None, test: str | None = None
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Training, validation and test pairs."""
    name = settings.data
    if name == "dates":
        return dates.load(settings.seed)
    if name == "multi30k":
        files = {**MULTI30K, **({"test": test} if test else {})}
        path = lambda file, side: data.fetch(name, f"{file}.{side}.gz", data_dir)
        read = lambda file: data.parallel(path(file, "de"), path(file, "en"))
        return read(files["train"]), read(files["validation"]), read(files["test"])
    if name == "tatoeba_ko":  # column 0 is English
        rows = data.pairs_of_table(data.fetch(name, "kor.txt", data_dir), 1, 0)
    elif name == "chatbot_ko":
        path = data.fetch(name, "ChatbotData.csv", data_dir)
        rows = data.pairs_of_table(path, delimiter=",", header=True)
    elif settings.target is not None:
        rows = data.parallel(Path(name), Path(settings.target))
    else:
        delimiter = "," if Path(name).suffix == ".csv" else "\t"
        rows = data.pairs_of_table(Path(name), delimiter=delimiter)
    if len(rows) < 10:
        raise InputError(f"{name}: {len(rows)} pairs, at least 10 needed")
    return data.split(rows, settings.held_out, seed=0)


def prepared(
    pairs: list[Pair], settings: Settings, seed: int, least: int = 1
) -> list[Pair]:
    """In lower case if asked for, and joined, `least` to `joined` at a time."""
    if settings.lower:
        pairs = [Pair(p.source.lower(), p.target.lower(), p.place) for p in pairs]
    return join(pairs, settings.joined, seed, least) if settings.joined > 1 else pairs


def join(pairs: list[Pair], most: int, seed: int, least: int) -> list[Pair]:
    """As many as there are pairs: each starts with one of them, and others follow."""
    chance = random.Random(seed)
    found = []
    for pair in pairs:
        n = chance.randint(least, most)
        parts = [pair, *chance.choices(pairs, k=n - 1)]
        source = " ".join(part.source for part in parts)
        target = " ".join(part.target for part in parts)
        found.append(Pair(source, target, pair.place))
    return found


def encoded(
    pairs: list[Pair], vocabularies: tuple[Vocabulary, Vocabulary], longest: int
) -> list[Example]:
    found = []
    for pair in pairs:
        source, target = vocabularies
        example = source.encode(pair.source), target.encode(pair.target)
        for tokens in example:
            if len(tokens) >= longest:
                raise InputError(
                    f"{pair.place}: a sentence of {len(tokens)} tokens, more than "
                    f"--longest {longest} takes with its end"
                )
        found.append(example)
    return found


def load(
    settings: Settings,
    data_dir: Path | None,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
) -> Corpus:
    """Reads the data; makes the vocabularies of the training pairs if not given."""
    parts = load_pairs(settings, data_dir)
    train, validation, test = (
        prepared(part, settings, seed, least)
        for seed, (part, least) in enumerate(zip(parts, (1, 1, 2), strict=True))
    )
    if vocabularies is None:
        make = lambda texts: vocabulary.make(texts, settings.pieces)
        vocabularies = make(p.source for p in train), make(p.target for p in train)
    return Corpus(
        vocabularies,
        encoded(train, vocabularies, settings.longest),
        encoded(validation, vocabularies, settings.longest),
        test,
    )
