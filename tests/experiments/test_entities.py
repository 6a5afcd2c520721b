"""Spans of entities, against the definitions that seqeval publishes."""

import itertools
import random

import pytest

from experiments.tagging.corpus import Sentence
from experiments.tagging.data import Corpus
from experiments.tagging.entities import scheme, spans
from experiments.tagging.experiment import scores
from experiments.tagging.vocabulary import Vocabulary


def chunks(tags):
    """seqeval's `get_entities`, by its tables of where a chunk ends and starts."""
    ends = {"BB", "BS", "BO", "IB", "IS", "IO"}
    starts = {"EE", "EI", "SE", "SI", "OE", "OI"}
    found, before, kind_before, start = [], "O", "", 0
    for i, tag in enumerate([*tags, "O"]):
        letter, kind = tag[0], tag[2:] or "_"
        other = kind_before != kind
        if before in "ES" or before + letter in ends or (before != "O" and other):
            if before != "O":
                found.append((kind_before, start, i))
        if letter in "BS" or before + letter in starts or (letter != "O" and other):
            start = i
        before, kind_before = letter, kind
    return found


BIOES = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "XY")]


@pytest.mark.parametrize("n", range(5))
def test_spans_are_those_of_seqeval(n):
    """Of all sequences, also of those that no scheme has."""
    for tags in itertools.product(BIOES, repeat=n):
        assert spans(tags) == chunks(tags)


def drawn(chance, letters):
    """Spans, and their tags with these letters for begin, inside, end and single."""
    tags, found = [], []
    begin, inside, end, single = letters
    while len(tags) < 12:
        n, kind = chance.randint(0, 3), chance.choice("XY")
        if n:
            found.append((kind, len(tags), len(tags) + n))
        if n == 1:
            tags.append(f"{single}-{kind}")
        elif n:
            tags += [
                f"{begin}-{kind}",
                *[f"{inside}-{kind}"] * (n - 2),
                f"{end}-{kind}",
            ]
        else:
            tags.append("O")
    return tags, found


@pytest.mark.parametrize(
    ("letters", "name"), [("BIIB", "BIO"), ("BIES", "BIOES"), ("BILU", "BILOU")]
)
def test_spans_of_each_scheme(letters, name):
    chance, every = random.Random(0), set()
    for _ in range(200):
        tags, found = drawn(chance, letters)
        assert spans(tags) == found
        every |= {*tags}
    assert scheme(every) == name


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ("O B-X", "BIO"), ("O I-X", "BIO"), ("B-X I-X", "BIO"), ("B I O", "BIO"),
        ("O B-X E-X", "BIOES"), ("O S-X", "BIOES"), ("O U-X", "BILOU"),
        ("B I E S O", "BIOES"), ("O B-X L-X E-X", None), ("O M-X", None), ("O", None),
        ("O X", None), ("NOUN VERB", None), ("O B_X", None), ("B I", None),
        ("O B-X x", None), ("O PER-B", None),
    ],
)  # fmt: skip
def test_scheme(tags, name):
    assert scheme(tags.split()) == name


@pytest.mark.parametrize("letters", ["BIES", "BILU"])
def test_scores_are_over_spans(letters):
    """Of three entities one is found, one by half, one not; and one is made up."""
    b, i, e, s = letters
    truth = [[f"{b}-X", f"{i}-X", f"{e}-X", "O", f"{s}-Y"], [f"{b}-X", f"{e}-X", "O"]]
    said = [[f"{b}-X", f"{e}-X", "O", f"{s}-Y", f"{s}-Y"], ["O", "O", "O"]]
    test = [Sentence([*"abcde"][: len(tags)], tags) for tags in truth]
    tags = sorted({tag for row in truth for tag in row})
    found = scores(said, Corpus(test, [], test, Vocabulary([], [], tags)))
    assert found["precision"] == pytest.approx(100 / 3)
    assert found["recall"] == pytest.approx(100 / 3)
    assert found["F1"] == pytest.approx(100 / 3)
    assert found["accuracy"] == pytest.approx(100 * 3 / 8)
