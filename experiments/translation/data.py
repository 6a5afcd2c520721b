"""A data set as tokens: its parts, its two vocabularies, batches of a few shapes."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import datasets, tables
from experiments.frame import buckets
from experiments.frame.buckets import Bucket, bound, by_width, pad
from experiments.frame.data import Data, digest
from experiments.frame.errors import InputError
from experiments.tables import Pair
from experiments.translation import dates, vocabulary
from experiments.translation.settings import OF_TABLES, PRESETS, Settings
from experiments.translation.vocabulary import END, START, UNKNOWN, Vocabulary

# shapes to compile for; a batch has as many sentences as fit its tokens
BOUNDS = (8, 12, 16, 20, 26, 34, 46, 64, 90, 128, 180, 256, 362, 512)
FEWER = BOUNDS[1::2]  # for use: compiling costs more than padding


class Batch(NamedTuple):
    """Padded with END; a sentence that only fills the batch has no length."""

    sources: np.ndarray  # (B, S)
    lengths: np.ndarray  # (B,)
    inputs: np.ndarray  # (B, T), a start token and the target
    targets: np.ndarray  # (B, T), the target and an end token
    target_lengths: np.ndarray  # (B,)


Example = tuple[list[int], list[int]]  # source and target, without END and START


def load(settings: Settings, data_dir: Path | None) -> Data:
    """Reads the data, and makes the vocabularies of the training pairs."""
    parts = read(settings, data_dir)
    train, validation, test = (
        prepared(part, settings, seed, least)
        for seed, (part, least) in enumerate(zip(parts, (1, 1, 2), strict=True))
    )
    if not train:
        raise InputError(f"--data {settings.data}: no pair to train on")
    make = lambda texts: vocabulary.make(texts, settings.pieces)
    made = make(p.source for p in train), make(p.target for p in train)
    # what is too long is told now, not after the training
    examples, held_out, _ = (
        encoded(part, made, settings.longest) for part in (train, validation, test)
    )
    shapes = grouped(examples, settings.tokens, BOUNDS)
    facts = {"vocabularies": vocabulary.to_text(made)}
    sizes = " and ".join(f"{len(v):,}" for v in made)
    own = [f"{k} {v}" for k, v in asdict(settings).items() if v != getattr(Settings, k)]
    about = [
        f"{settings.data}: {len(train):,} pairs to train on, {len(validation):,} held "
        f"out, {len(test):,} to test; vocabularies of {sizes}.",
        unknown(test, made),
        f"Other than the defaults: {', '.join(own) or 'nothing'}.",
        f"{len(shapes)} shapes of batches, each compiled when it first comes.",
    ]
    return Data(
        train=buckets.Endless(shapes, settings.seed),
        held_out=[batch for batch, _ in once(held_out, settings.tokens)],
        tests={"test": test},
        digests={"all": digest_of(parts, facts), "test": digest_of_pairs(test)},
        facts=facts,
        about="\n".join(filter(None, about)),
        per_step=settings.tokens,
        unit="token",
    )


def digest_of_pairs(pairs: Iterable[Pair]) -> str:
    return digest([pair[:2] for pair in pairs])


def digest_of(parts: Iterable[list[Pair]], facts: dict[str, Any]) -> str:
    """Of all pairs and of the vocabularies, which are made of some of them."""
    return digest([[*map(digest_of_pairs, parts)], facts["vocabularies"]])


def read(
    settings: Settings, data_dir: Path | None, test: str = "test_2016_flickr"
) -> list[list[Pair]]:
    """Training, validation and test pairs."""
    name = settings.data
    if name == "dates":
        return [*dates.load()]
    if name == "multi30k":
        path = lambda file, side: datasets.fetch(name, f"{file}.{side}.gz", data_dir)
        parallel = lambda file: tables.parallel(path(file, "de"), path(file, "en"))
        return [parallel(part) for part in ("train", "val", test)]
    if name == "tatoeba_ko":  # column 0 is English
        rows = tables.pairs_of_table(datasets.fetch(name, "kor.txt", data_dir), 1, 0)
    elif name == "chatbot_ko":
        path = datasets.fetch(name, "ChatbotData.csv", data_dir)
        rows = tables.pairs_of_table(path, delimiter=",", header=True)
    else:
        rows = own_pairs(settings)
    if len(rows) < 10:
        raise InputError(f"{name}: {len(rows)} pairs, at least 10 needed")
    # not a sentence of training among those to test
    return [*datasets.split(rows, settings.held_out, 0, lambda pair: pair.source)]


def own_pairs(settings: Settings) -> list[Pair]:
    path = Path(settings.data)
    if not path.exists():
        known = ", ".join(PRESETS)
        raise InputError(f"--data {path}: neither a file nor one of {known}")
    if settings.target is not None:
        return tables.parallel(path, Path(settings.target))
    how: Any = {name: getattr(settings, name) for name in OF_TABLES}
    try:
        return tables.whole(tables.own(path, ("source", "target"), **how).rows)
    except InputError as e:
        if "columns" not in str(e) or "--columns" in str(e):
            raise
        raise InputError(f"{e}; or give --target") from e


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
    pairs: list[Pair], vocabularies: Sequence[Vocabulary], longest: int
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


def unknown(pairs: list[Pair], vocabularies: Sequence[Vocabulary]) -> str | None:
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


def collate(examples: list[Example], B: int, S: int, T: int) -> Batch:
    sources, lengths = pad([[*s, END] for s, _ in examples], B, S, END)
    inputs, _ = pad([[START, *t] for _, t in examples], B, T, END)
    targets, target_lengths = pad([[*t, END] for _, t in examples], B, T, END)
    return Batch(sources, lengths, inputs, targets, target_lengths)


def grouped(
    examples: list[Example], tokens: int, bounds: tuple[int, ...]
) -> list[Bucket]:
    """Of like length, each batch of as many sentences as fit its tokens."""
    found = []
    widths = by_width([1 + max(map(len, example)) for example in examples], bounds)
    for width, rows in widths.items():
        # where one side is short throughout, as in dates, it is not padded further
        longest = (1 + max(len(examples[i][side]) for i in rows) for side in (0, 1))
        B = max(1, tokens // width)
        S, T = (bound(n, bounds) for n in longest)
        make = lambda rows, B, widths=(S, T): collate(
            [examples[i] for i in rows], B, *widths
        )
        found.append(Bucket(rows, B, make))
    return found


def once(examples: list[Example], tokens: int) -> list[tuple[Batch, list[int]]]:
    """Every example once, and which they are; the last batches are filled up."""
    return buckets.once(grouped(examples, tokens, FEWER))
