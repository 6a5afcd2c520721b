"""The data of other experiments, with batches to test on for each."""

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells.settings import TAGGED, TEXTS, Settings
from experiments.frame import buckets
from experiments.frame.data import Data
from experiments.language_model import data as texts
from experiments.language_model.settings import Settings as OfText
from experiments.memory import data as sums
from experiments.memory.settings import Settings as OfSums
from experiments.tagging import data as words
from experiments.tagging.settings import Settings as OfWords
from experiments.tagging.vocabulary import Vocabulary, encode


class Clocked:
    """Batches by their number, and the processor's time when each was asked for."""

    def __init__(self, batches: Any):
        self.batches, self.times = batches, []

    def __getitem__(self, step: int) -> Any:
        self.times.append(1e3 * time.process_time())
        return self.batches[step]

    def ms(self) -> float:
        """The processor's time of a step, the median of twenty parts of the run.

        (Steps are not waited for one by one; some parts compile or evaluate.)
        """
        size = max(1, len(self.times) // 20)
        each = np.diff(self.times[::size]) / size
        return float(np.median(each)) if each.size else 0.0


def load(settings: Settings, data_dir: Path | None) -> Data:
    """`tests["test"]` is a list of batches."""
    at = settings.task, settings.length, settings.batch, settings.seed
    loaded = parts(*at, data_dir)
    return loaded._replace(train=Clocked(loaded.train))


@cache
def parts(task: str, length: int, batch: int, seed: int, data_dir: Path | None) -> Data:
    shared: Any = {"batch": batch, "seed": seed}
    if task in TEXTS:  # what is held out is for the choice of a rate, and to test
        loaded = texts.load(OfText(TEXTS[task], window=length, **shared), data_dir)
        last = loaded.tests["test"]
        half = len(last) // 2
        held_out, test = map(texts.every_window, (last[:half], last[half:]))
        return loaded._replace(held_out=held_out, tests={"test": test})
    if task in TAGGED:
        own = OfWords(TAGGED[task], longest=length, **shared)
        loaded = words.load(own, data_dir)
        known = Vocabulary(**loaded.facts["vocabulary"])
        rows, letters = encode(loaded.tests["test"].test, known, own)
        found = words.bucketed(words.cut(rows, own), letters, own)
        test = [made for made, _ in buckets.once(found)]
        return loaded._replace(tests={"test": test})
    loaded = sums.load(OfSums(length=length, **shared))
    test = [loaded.tests["test"][i] for i in range(sums.TEST_BATCHES)]
    return loaded._replace(tests={"test": test})


def title(settings: Settings) -> str:
    return {
        "adding": f"adding over {settings.length} steps",
        "source": "tagging, characters of Python source",
        "ewt": "tagging, parts of speech of UD English EWT",
        "documentation": "language model, characters of Python's documentation",
        "shakespeare": "language model, characters of Tiny Shakespeare",
    }[settings.task]
