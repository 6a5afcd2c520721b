"""Tables of the user's own: columns, header and separator, given or told."""

import gzip
import random

import pytest

from experiments import tables
from experiments.classification.__main__ import main
from experiments.classification.settings import Settings
from experiments.classification.texts import own_texts
from experiments.frame.errors import InputError
from experiments.order.__main__ import main as order
from experiments.translation import data as translation
from experiments.translation.settings import Settings as OfTranslation
from tests.experiments.helpers import error

ROWS = [f"a film {i}\t{('neg', 'pos')[i % 2]}" for i in range(20)]
WANT = [tuple(row.split("\t")) for row in ROWS]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.tsv"


@pytest.fixture
def told(capsys):
    """What was told since it was asked before, a line each."""
    return lambda: capsys.readouterr().err.splitlines()


def read(path, rows, **how):
    path.write_text("\n".join(rows) + "\n")
    return own_texts(path, Settings(data=str(path), **how))


def moved(rows, *order, extra="x"):
    """The columns in another order; the third is `extra`."""
    cut = [[*row.split("\t"), extra] for row in rows]
    return ["\t".join(fields[i] for i in order) for fields in cut]


def test_what_is_taken_for_what_is_told(path, told):
    assert read(path, ROWS) == WANT
    assert told() == [f"{path}: text in column 1, label in column 2 of 2; no header"]
    assert read(path, ["sentence\tlabel", *ROWS]) == WANT
    assert told() == [
        f"{path}: text in column 1, label in column 2 of 2; line 1 is a header, "
        "sentence, label"
    ]
    assert read(path, moved(["Review\tClass", *ROWS], 1, 2, 0)) == WANT
    assert told() == [
        f"{path}: text in column 3, label in column 1 of 3; line 1 is a header, "
        "Class, x, Review"
    ]


def test_options_tell_what_is_what(path, told):
    assert read(path, moved(ROWS, 1, 0), columns="label,text") == WANT
    assert read(path, moved(ROWS, 2, 1, 0), columns="_, label,text") == WANT
    assert read(path, ["u\tv", *ROWS], header=True) == WANT
    assert len(told()) == 3
    assert read(path, ["text\tlabel", *ROWS], header=False)[0] == ("text", "label")
    two = ['"a', 'b",kind', *(row.replace("\t", ",") for row in ROWS)]
    assert read(path, two, header=True, separator="comma") == WANT
    assert told()[1].endswith("is a header, a b, kind")
    swapped = read(path, moved(["text\tlabel", *ROWS], 0, 1), columns="label,text")
    assert swapped == [pair[::-1] for pair in WANT]


def test_the_label_first(path):
    """As in SMS Spam: a line says so, and both options go on."""
    rows = moved(ROWS, 1, 0)
    with pytest.raises(InputError, match=r"2 different texts in column 1 and 20 diff"):
        read(path, rows)
    with pytest.raises(InputError, match=r"if the label stands first, --columns lab"):
        read(path, ["v1\tv2", *rows])
    assert read(path, rows, columns="label,text") == WANT
    as_it_is = [pair[::-1] for pair in WANT]
    assert read(path, rows, columns="text,label") == as_it_is


def test_a_header_of_other_names(path):
    rows = ["what\tkind", *ROWS]
    with pytest.raises(InputError, match=r"own.tsv, line 1: no other row has the lab"):
        read(path, rows)
    with pytest.raises(InputError, match=r"the label kind: if this is a header, --hea"):
        read(path, moved(rows, 1, 0), columns="label,text")
    assert read(path, rows, header=True) == WANT
    assert read(path, rows, header=False) == [("what", "kind"), *WANT]


def test_separators(path, tmp_path, told):
    commas = ['"a film, it was",pos', *(row.replace("\t", ",") for row in ROWS[1:])]
    want = [("a film, it was", "pos"), *WANT[1:]]
    assert read(tmp_path / "own.CSV", commas) == want
    assert read(path, commas, separator="comma") == want
    packed = tmp_path / "own.csv.gz"
    packed.write_bytes(gzip.compress("\n".join(commas).encode()))
    assert own_texts(packed, Settings(data=str(packed))) == want
    other = [row.replace("\t", ";") for row in ROWS]
    assert read(tmp_path / "b.csv", other, separator="semicolon") == WANT
    assert read(tmp_path / "b.csv", ROWS, separator="tab") == WANT
    with pytest.raises(InputError, match=r"line 1: 1 columns, 2 expected .*see --sep"):
        read(path, commas)


def test_labels_are_names(path):
    """A space at the end makes no other class."""
    rows = [*ROWS[:3], ROWS[3] + " ", *ROWS[4:]]
    assert read(path, rows) == WANT


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (moved(ROWS, 0, 1, 2), None, r"line 1: 3 columns, 2 expected; --columns tells"),
        (["text\tquestion\tlabel", *moved(ROWS, 0, 2, 1)], None, "3 columns, 2 exp"),
        ([*ROWS, "a\tb\tpos"], None, "line 21: 3 columns, 2 expected"),
        ([*ROWS, ""], None, "line 21: 0 columns, 2 expected"),
        ([*ROWS, " \tpos"], None, "line 21: an empty text or label"),
        (ROWS, "text", "--columns text: expected text and label once each"),
        (ROWS, "text,text", "--columns text,text: expected text and label once each"),
        (ROWS, "text,kind", "--columns text,kind: expected text and label once each"),
        (ROWS, "text,label,_", "--columns text,label,_: the file has 2 columns"),
        (ROWS[:9], None, "9 texts, at least 10 needed"),
        ([], None, "line 1: 0 columns, 2 expected"),
    ],
)
def test_mistakes(path, rows, columns, message):
    with pytest.raises(InputError, match=message):
        read(path, rows, columns=columns)


def test_pairs(path, told):
    """Of translation, whose header names what the columns are, or languages."""

    def pairs(rows, **how):
        path.write_text("\n".join(rows) + "\n")
        settings = OfTranslation(data=str(path), **how)
        return [tuple(pair[:2]) for pair in translation.own_pairs(settings)]

    rows = ["eins\tone", "zwei\ttwo"]
    want = [("eins", "one"), ("zwei", "two")]
    assert pairs(rows) == pairs(["German\tEnglish", *rows]) == want
    assert pairs(["x\ty", *rows], header=True) == want
    assert pairs(["target\tsource", *moved(rows, 1, 0)]) == want
    assert pairs(moved(rows, 1, 0, 2), columns="target,source,_") == want
    lines = told()
    assert len(lines) == 5 and lines[1].endswith("is a header, German, English")
    assert pairs(["de\ten", *rows], header=False)[0] == ("de", "en")
    with pytest.raises(InputError, match=r"line 1: 3 columns, 2 expected; --columns "):
        pairs(moved(rows, 0, 1, 2))


def test_commands(path, tmp_path, capsys):
    """What is told is one line, and what is read is trained on."""
    chance, out = random.Random(0), tmp_path / "run"
    rows = [f"{chance.choice(['ham', 'spam'])}\t{i} {i}" for i in range(60)]
    path.write_text("\n".join(rows))
    small = f"--out {out} --hidden 4 --model bag --steps 1".split()
    train = lambda *options: main(["train", *small, *map(str, options)])
    assert "60 different labels in column 2" in error(capsys, train("--data", path))
    for option in (["--columns", "text,label"], ["--header"], ["--separator", "tab"]):
        line = error(capsys, train("--data", "digits", *option))
        assert f"{option[0]}: changes nothing with the data digits" in line
        line = error(capsys, order(["train", "--out", str(out), *option]))
        assert f"{option[0]}: changes nothing with the data first" in line
    assert not out.exists()
    assert train("--data", path, "--columns", "label,text", "--longest", 1) == 0
    printed = capsys.readouterr()
    assert "label in column 1 of 2; no header" in printed.err
    assert "own.tsv: texts that are cut to --longest 1: 60" in printed.err
    assert "2 labels" in printed.out


def test_tables_of_data_sets(path):
    """Their columns are known, and there may be more."""
    path.write_text("a\tb\tc\nd\te\tf\n")
    found = tables.pairs_of_table(path, 1, 0, header=True)
    assert [pair[:2] for pair in found] == [("e", "d")]
