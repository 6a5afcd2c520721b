"""A data set as tokens: its splits, its two vocabularies, what is too long."""

import hashlib
import json
import random
from pathlib import Path
from typing import NamedTuple

from experiments import data
from experiments.data import Pair
from experiments.errors import InputError
from experiments.translation import dates, vocabulary
from experiments.translation.batches import Example
from experiments.translation.settings import PRESETS, Settings
from experiments.translation.vocabulary import UNKNOWN, Vocabulary

Parts = tuple[list[Pair], list[Pair], list[Pair]]
Vocabularies = tuple[Vocabulary, Vocabulary]


class Corpus(NamedTuple):
    vocabularies: Vocabularies  # of sources and targets
    train: list[Example]
    validation: list[Example]
    test: list[Pair]
    digests: list[str]  # of the pairs of each part, to know them again


def load_pairs(
    settings: Settings, data_dir: Path | None, test: str = "test_2016_flickr"
) -> Parts:
    """Training, validation and test pairs."""
    name = settings.data
    if name == "dates":
        return dates.load()
    if name == "multi30k":
        path = lambda file, side: data.fetch(name, f"{file}.{side}.gz", data_dir)
        read = lambda file: data.parallel(path(file, "de"), path(file, "en"))
        return read("train"), read("val"), read(test)
    if name == "tatoeba_ko":  # column 0 is English
        rows = data.pairs_of_table(data.fetch(name, "kor.txt", data_dir), 1, 0)
    elif name == "chatbot_ko":
        path = data.fetch(name, "ChatbotData.csv", data_dir)
        rows = data.pairs_of_table(path, delimiter=",", header=True)
    else:
        rows = own_pairs(settings)
    if len(rows) < 10:
        raise InputError(f"{name}: {len(rows)} pairs, at least 10 needed")
    # not a sentence of training among those to test
    return data.split(rows, settings.held_out, 0, lambda pair: pair.source)


def own_pairs(settings: Settings) -> list[Pair]:
    path = Path(settings.data)
    if not path.exists():
        known = ", ".join(PRESETS)
        raise InputError(f"--data {path}: neither a file nor one of {known}")
    if settings.target is not None:
        return data.parallel(path, Path(settings.target))
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".xz")]
    delimiter = "," if suffixes[-1:] == [".csv"] else "\t"
    try:
        how = {"header": settings.header, "more": False}
        return data.pairs_of_table(path, delimiter=delimiter, **how)
    except InputError as e:
        if "columns" not in str(e):
            raise
        what = "commas, texts with a comma quoted" if delimiter == "," else "tabs"
        raise InputError(f"{e} (a table of {what}; or give --target)") from e


def prepared(
    pairs: list[Pair], settings: Settings, seed: int, least: int
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
        place = pair.place + (f" and {n - 1} more joined to it" if n > 1 else "")
        found.append(Pair(source, target, place))
    return found


def encoded(
    pairs: list[Pair], vocabularies: Vocabularies, longest: int
) -> list[Example]:
    found = []
    for pair in pairs:
        source, target = vocabularies
        example = source.encode(pair.source), target.encode(pair.target)
        for tokens in example:
            if len(tokens) >= longest:
                raise InputError(
                    f"{pair.place}: a sentence of {len(tokens)} tokens; with "
                    f"--longest {longest} the model takes {longest - 1}"
                )
        found.append(example)
    return found


def unknown(pairs: list[Pair], vocabularies: Vocabularies) -> str | None:
    """What to say of pairs with characters that no training pair has, if any has."""
    found = []
    for pair in pairs:
        for made, text in zip(vocabularies, pair[:2], strict=True):
            if UNKNOWN in made.encode(text):
                found.append((pair.place, made.unknown(text)))
    if not found:
        return None
    place, strange = found[0]
    others = f" (and in {len(found) - 1} more sentences)" if len(found) > 1 else ""
    names = ", ".join(map(repr, strange))
    return f"{place}: {names} not in the vocabulary, read as unknown{others}"


def digest(pairs: list[Pair]) -> str:
    text = json.dumps([pair[:2] for pair in pairs])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(
    settings: Settings, data_dir: Path | None, vocabularies: Vocabularies | None = None
) -> Corpus:
    """Reads the data; makes the vocabularies of the training pairs if not given."""
    pairs = load_pairs(settings, data_dir)
    train, validation, test = (
        prepared(part, settings, seed, least)
        for seed, (part, least) in enumerate(zip(pairs, (1, 1, 2), strict=True))
    )
    if vocabularies is None:
        make = lambda texts: vocabulary.make(texts, settings.pieces)
        vocabularies = make(p.source for p in train), make(p.target for p in train)
    made, digests = vocabularies, [*map(digest, pairs)]
    encode = lambda part: encoded(part, made, settings.longest)
    encode(test)  # what is too long is told now, not after the training
    return Corpus(made, encode(train), encode(validation), test, digests)
