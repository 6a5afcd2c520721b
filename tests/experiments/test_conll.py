"""CoNLL files: what is read, what is left out and told, and what is an error."""

import pytest

from experiments.conll import conll, conllu
from experiments.frame.errors import InputError
from experiments.tagging import corpus
from experiments.tagging.__main__ import main
from experiments.tagging.settings import Settings
from tests.experiments.helpers import error


def row(number, form, upos="NOUN"):
    return f"{number}\t{form}\t{form}\t{upos}\tN\t_\t0\troot\t_\t_\n"


def words(path):
    return [[token[0] for token in sentence] for sentence in conllu(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.conllu"


@pytest.fixture
def told(capsys):
    """What was told since it was asked before, a line each."""
    return lambda: capsys.readouterr().err.splitlines()


def test_ids_of_conllu(path, told):
    """Words are read; ranges and empty nodes, as the format has them, are not."""
    rows = [("1-2", "im"), ("1", "in"), ("2", "dem"), ("2.1", "x"), ("3", "A")]
    text = "# text = im A\n" + "".join(row(*r) for r in [("0.1", "y"), *rows])
    path.write_text(text + "\n" + row(1, "B"))
    assert words(path) == [["in", "dem", "A"], ["B"]]
    assert told() == []


STRANGE = ["0", "01", "a", "1a", "1-", "2-1", "1--2", "1.0", "1.", "-1", "_", "", "²"]


@pytest.mark.parametrize("number", [*STRANGE, "١", "1 2", "1,2", "1-2-3", "x\ufeff2"])
def test_other_ids_are_errors(path, number):
    path.write_text(row(1, "cat") + row(number, "dog"))
    with pytest.raises(
        InputError, match=r"a.conllu, line 2: the ID .*: expected a num"
    ):
        conllu(path)


def test_byte_order_marks_of_joined_files(path, told):
    """No word is lost, and what is left out is told."""
    path.write_text("\ufeff" + row(1, "cat") + "\n\ufeff" + row(1, "dog") + "\n")
    assert words(path) == [["cat"], ["dog"]]
    assert told() == [
        f"{path}: byte order marks at the start of lines, left out: 1 (the first in "
        "line 3)"
    ]
    path.write_text(row(1, "c\ufeffat"))
    assert words(path) == [["c\ufeffat"]]
    assert (
        "lines with a byte order mark in them, kept: 1 (the first in line 1)"
        in (told()[0])
    )
    path.write_text(row(1, "cat")[:-1] + "\ufeff" + row(1, "dog"))
    with pytest.raises(InputError, match="line 1: 19 columns between tabs, 10 exp"):
        conllu(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tcat\tcat\tNOUN\tN\t_\t0\troot\t_\n", "9 columns between tabs, 10"),
        (row(1, "cat")[:-1] + "\t_\n", "11 columns between tabs, 10 expected"),
        (row(1, "cat").replace("\t", " "), "1 columns between tabs, 10 expected"),
        (row(1, ""), "an empty FORM"),
        (row(1, " "), "an empty FORM"),
        (row(1, "cat", ""), "an empty UPOS"),
        (" # a comment\n", "1 columns between tabs, 10 expected"),
    ],
)
def test_rows_of_conllu_that_are_not_whole(path, text, message):
    path.write_text(row(1, "a") + "\n" + text)
    with pytest.raises(InputError, match=f"a.conllu, line 3: {message}"):
        conllu(path)


def test_what_is_odd_in_conllu_is_told(path, told):
    path.write_text(
        row(1, "_") + row(2, "_", "_") + row(4, "A") + "# x\n" + row(1, "B")
    )
    assert words(path) == [["_", "_", "A", "B"]]
    assert [line.partition(": ")[2] for line in told()] == [
        "words whose FORM is _: 2 (the first in line 1)",
        "words whose UPOS is _: 1 (the first in line 2)",
        "comments within a sentence: 1 (the first in line 4)",
        "words whose ID does not follow the one before: 2 (the first in line 3)",
    ]


# CoNLL files of one's own


def own(path, text, **settings):
    path.write_text(text)
    return [[*map(tuple, zip(*s, strict=True))] for s in corpus.own(
        path, Settings(data=str(path), **settings)
    )]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.conll"


def test_marks_of_documents(file, told):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\n\n-DOCSTART- (2)\na DT x O\n"
    read = [[("EU", "B-ORG")], [("a", "O")]]
    assert own(file, text) == read
    assert told() == [f"{file}: marks of documents, left out: 2 (the first in line 1)"]
    other = text.replace("-DOCSTART-", "%%DOC")
    assert own(file, other, mark="%%") == read and len(told()) == 1
    with pytest.raises(InputError, match="line 5: 2 columns, 4 expected"):
        own(file, other)
    whole = text.replace("-DOCSTART- (2)", "-DOCSTART- -X- -X- O")
    assert [len(s) for s in own(file, whole, mark="")] == [1, 1, 2] and not told()


@pytest.mark.parametrize("tab", ["\t", " "])
def test_comments(file, told, tab):
    """Left out if they have not the columns of words; a word that is # is kept."""
    text = f"# a b c\n#id=3\nthe{tab}O\n#{tab}B\n#x{tab}B\n\n# 1\t2\t3\na{tab}O\n"
    found = [[("the", "O"), ("#", "B"), ("#x", "B")], [("a", "O")]]
    assert own(file, text) == found
    assert told() == [f"{file}: comments, left out: 3 (the first in line 1)"]
    some = text.replace("# 1\t2\t3\n", "")
    assert own(file, some, comments="#") == [[("the", "O")], [("a", "O")]]
    assert told() == [f"{file}: comments, left out: 4 (the first in line 1)"]
    with pytest.raises(InputError, match="line 2: 1 columns, 4 expected"):
        own(file, text, comments="")


def test_a_comment_that_may_be_a_word(file):
    """Where a sentence starts, in a file of spaces."""
    text = "a O\n\n# id\nb O\n"
    with pytest.raises(InputError, match=r"line 3: a comment, or the word #. --comm"):
        own(file, text)
    assert own(file, text, comments="# ") == [[("a", "O")], [("b", "O")]]
    assert own(file, text, comments="")[1] == [("#", "id"), ("b", "O")]


def test_columns(file, told):
    text = "w t x\na O 1\nb B 2\n\nc O 3\n"
    assert own(file, "1 a X O\n2 b Y B\n", columns="_,word,_,tag") == [
        [("a", "O"), ("b", "B")]
    ]
    read = own(file, text, columns="word,tag,_", header=True)
    assert read == [[("a", "O"), ("b", "B")], [("c", "O")]]
    assert told() == [f"{file}: its first row is a header, w, t"]
    for columns, message in (("word,tag", "line 1: 3 columns, 2 expected"),
                             ("word,pos,tag", "word and tag once each"),
                             ("word,word,tag", "word and tag once each")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            own(file, text, columns=columns)
    with pytest.raises(InputError, match="line 2: 2 columns, 3 expected"):
        own(file, "EU NNP B-ORG\nrejects VBZ\n")
    with pytest.raises(InputError, match="line 1: an empty column"):
        own(file, "a\t\tO\n", columns="_,word,tag")


def test_headers(file, told):
    text = "Token\tpos\tTag\n\na\tX\tO\n"
    assert own(file, text) == [[("a", "O")]]
    assert told() == [f"{file}: its first row is a header, Token, Tag"]
    assert own(file, text, header=False)[0] == [("Token", "Tag")] and not told()


def test_numbers_of_words_are_no_words(file, tmp_path):
    rows = row(1, "a") + row(2, "b") + "\n" + row(1, "c")
    with pytest.raises(InputError, match=r"a.conll: the word of each row is its num"):
        own(file, rows)
    for name in ("a.conllu", "a.CONLLU"):  # as it is read by the name
        assert own(tmp_path / name, rows)[0] == [("a", "NOUN"), ("b", "NOUN")]
    with pytest.raises(InputError, match=r"--mark: changes nothing with a .conllu"):
        own(tmp_path / "a.conllu", rows, mark="x")


def test_as_commands_tell_it(tmp_path, capsys):
    path, out = tmp_path / "bad.conllu", tmp_path / "run"
    path.write_text(row(1, "a") + row("x", "b"))
    told = lambda *o: error(capsys, main(["train", "--out", str(out), *map(str, o)]))
    assert "bad.conllu, line 2: the ID x: expected" in told("--data", path)
    line = told("--data", path, "--comments", "%")
    assert "--comments: changes nothing with a .conllu file" in line
    line = told("--mark=-DOC-")
    assert "--mark: changes nothing with the data python" in line
    assert not out.exists()


def test_columns_of_data_sets(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("# a b\n#\tO\nx\tO\n")
    assert conll(path, (0, 1), comments=("# ",)) == [[("#", "O"), ("x", "O")]]
