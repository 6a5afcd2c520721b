"""Tasks in which order is all: both classes have the same words, in two orders.

Both texts of a pair stand in the same part of the data, so that a model blind to
order answers both alike, and is right about one of them: 50%, whatever it learns.
"""

import ast
import functools
import random
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments import datasets
from experiments.classification import data
from experiments.classification.settings import Settings
from experiments.classification.texts import Rows
from experiments.frame.data import Data
from experiments.frame.errors import InputError

FILLERS = "cdefgh"
ELSEWHERE = {"test", "idlelib", "lib2to3", "site-packages", "dist-packages"}


def first(n: int = 2500, seed: int = 0) -> list[Rows]:
    """Letters among which are one a and one b: which of them is first?"""
    chance, found = random.Random(seed), {}
    while len(found) < n:
        letters = chance.choices(FILLERS, k=chance.randint(4, 10))
        for letter in "ba":
            letters.insert(chance.randint(0, len(letters)), letter)
        text = " ".join(letters)
        if text.index("a") < text.index("b"):
            found[text] = text.translate(str.maketrans("ab", "ba"))
    return parts_of([*found.items()], ("a first", "b first"))


@functools.cache
def sentences() -> list[Rows]:
    """Sentences as they are, and with their words in random order."""
    pairs = [(text, disordered(text, i)) for i, text in enumerate(documentation())]
    return parts_of(pairs, ("in order", "shuffled"))


def parts_of(pairs: list[tuple[str, str]], labels: tuple[str, str]) -> list[Rows]:
    """Training, validation and test texts, no pair in two parts."""
    bag = lambda pair: " ".join(sorted(pair[0].split()))
    parts = datasets.split(pairs, 0.1, 0, bag)
    label = lambda pair: [*zip(pair, labels, strict=True)]
    return [[row for pair in part for row in label(pair)] for part in parts]


def disordered(text: str, seed: int) -> str:
    """The words in another order than that of the text."""
    words, chance = text.split(), random.Random(seed)
    mixed = words.copy()
    while mixed == words:
        chance.shuffle(mixed)
    return " ".join(mixed)


def documentation(least: int = 6, most: int = 20) -> list[str]:
    """Sentences of 6 to 20 words from the docstrings of Python's standard library.

    In lower case, without marks, which would tell where a sentence began and ended.
    """
    folder, found = Path(sysconfig.get_path("stdlib")), {}
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/*.py")]):
        if path.relative_to(folder).parts[0] in ELSEWHERE:
            continue
        paragraphs = (p for text in docstrings(path) for p in text.split("\n\n"))
        for sentence in (s for p in paragraphs for s in re.split(r"(?<=[.!?])\s", p)):
            words = re.findall(r"[a-z']+", sentence.lower())
            whole = sentence[:1].isupper() and sentence.endswith(".")
            if whole and least <= len(words) <= most and len(set(words)) > 1:
                found[" ".join(words)] = None
    return [*found]


def docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():  # about the file, not about this
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_bytes())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            yield ast.get_docstring(node) or ""


OWN: dict[str, Callable[[], list[Rows]]] = {"first": first, "sentences": sentences}


def load(settings: Settings, data_dir: Path | None) -> Data:
    """The data of a task, or of any set of classification."""
    if settings.data in OWN:
        parts = OWN[settings.data]()
        most = max(len(text.split()) for part in parts for text, _ in part)
        if settings.longest < most:  # a text that is cut has no partner any more
            name, longest = settings.data, settings.longest
            raise InputError(f"--longest {longest}: {name} has texts of {most} words")
        return data.of_texts(parts, settings)
    return data.load(settings, data_dir)
