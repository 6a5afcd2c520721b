"""Tagging as its user runs it: train, stop, resume, tag, report, mistakes."""

import html
import io
import itertools
import json
import random
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx

from experiments import datasets
from experiments.frame import buckets
from experiments.frame.data import Same
from experiments.frame.errors import InputError
from experiments.tagging import corpus, data, experiment, source
from experiments.tagging.__main__ import main
from experiments.tagging.corpus import Sentence
from experiments.tagging.entities import scheme
from experiments.tagging.model import Tagger, decode, loss
from experiments.tagging.page import coloured
from experiments.tagging.settings import Settings, preset
from experiments.tagging.vocabulary import UNKNOWN, Vocabulary, encode, known, spelling
from tests.experiments.helpers import REAL, error, real, resumes

# one width to compile for
TINY: dict = {
    "hidden": 8, "embedding": 8, "letter_hidden": 8, "letter_embedding": 8,
    "longest": 8, "longest_word": 4, "batch": 240, "steps": 2,
}  # fmt: skip
SMALL = [str(x) for k, v in TINY.items() for x in ("--" + k.replace("_", "-"), v)]
WORDS = "--hidden 8 --embedding 8 --longest 12 --batch 240".split()


def made_up(n, seed=0):
    """Words that end in a vowel or not, most of them new, and a word whose tag is
    told by the one after it."""
    chance = random.Random(seed)
    rows = []
    for _ in range(n):
        words, tags = [], []
        for _ in range(chance.randint(2, 4)):
            ends = chance.random() < 0.5
            word = "".join(chance.choice("bcdfaeiou") for _ in range(3))
            word += chance.choice("aeiou" if ends else "bcdf")
            words += ["to", word]
            tags += ["TOV", "V"] if ends else ["TOC", "C"]
        rows.append((words, tags))
    return rows


def write(path, rows, separator="\t"):
    lines = lambda row: "".join(
        f"{w}{separator}{t}\n" for w, t in zip(*row, strict=True)
    )
    path.write_text("\n".join(map(lines, rows)))
    return path


@pytest.fixture
def files(tmp_path):
    """Training, validation and test sentences as options."""
    options = []
    for i, (name, n) in enumerate((("data", 300), ("dev", 12), ("test", 60))):
        path = write(tmp_path / f"{name}.conll", made_up(n, i))
        options += [f"--{name}", str(path)]
    return options


def run(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def result_of(out):
    return json.loads((out / "result-test.json").read_text())


def test_train_tag_report(files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    options = ["--letters", "--jamo", "--crf", "--steps", 200,
               "--dropout", 0.0, "--learning-rate", 0.02]  # fmt: skip
    assert run(out, *files, *options) == 0
    printed = capsys.readouterr().out
    found = result_of(out)["scores"]
    # almost all words of the test are new, and half of them have either tag
    assert found["accuracy"] > 93 and found["accuracy, words not met"] > 90
    assert f"accuracy {found['accuracy']:.2f}%" in printed
    page = (out / "report.html").read_text()
    assert f"accuracy <b>{found['accuracy']:.2f}%</b>" in page
    assert "weights of the CRF" in page and (out / "transitions.png").exists()
    # the checkpoint tags the test's words as the training said
    rows = made_up(60, 2)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n\n".join(" ".join(words) for words, _ in rows))
    assert main(["tag", "--run", str(out), "--input", str(lines)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written[1::2] == [""] * 59
    right = []
    for line, (words, tags) in zip(written[::2], rows, strict=True):
        pairs = [pair.rsplit("/", 1) for pair in line.split()]
        assert [word for word, _ in pairs] == words
        right += [said == tag for (_, said), tag in zip(pairs, tags, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(found["accuracy"])
    # and what is typed; and into a file
    typed = io.TextIOWrapper(io.BytesIO(lines.read_bytes()))
    monkeypatch.setattr(sys, "stdin", typed)
    assert main(["tag", "--run", str(out), "--out", str(tmp_path / "tagged")]) == 0
    assert (tmp_path / "tagged").read_text().splitlines() == written
    both = tmp_path / "both"
    assert main(["report", "--runs", str(out), "--out", str(both)]) == 0
    printed = capsys.readouterr().out
    name = "BiLSTM, letters and jamo, CRF"
    assert f"| {name} | 1 | {found['accuracy']:.2f} |" in printed
    # and does not go on in another way
    line = error(capsys, run(out, *files, "--resume", "--no-crf"))
    assert "--no-crf: the checkpoint in" in line and "was made with True" in line
    line = error(capsys, main(["tag", "--run", str(out), "--input", "absent"]))
    assert "absent: No such file" in line
    write(out.parent / "data.conll", made_up(301))
    line = error(capsys, run(out, *files, "--resume", "--steps", 201))
    assert "was trained on other data" in line


def test_source_is_coloured(tmp_path, capsys, monkeypatch):
    modules = {"train": "bisect", "validation": "sched", "test": "this"}
    monkeypatch.setattr(source, "MODULES", modules)
    out = tmp_path / "run"
    options = ["--longest", 64, "--batch", 1024]
    assert main([*map(str, ("train", "--out", out, "--steps", 2, "--hidden", 8,
                            *options))]) == 0  # fmt: skip
    assert [*result_of(out)["scores"]] == ["accuracy"]
    assert "Source of the test" in (out / "report.html").read_text()
    text = "def f(x):\n    return x < 'größer & <b>'  # 3\n" * 4
    path = tmp_path / "own.py"
    path.write_text(text)
    assert main(["tag", "--run", str(out), "--input", str(path)]) == 0
    page = (out / "tagged.html").read_text()
    shown = page[page.index("<pre>") + 5 : page.index("</pre>")]
    assert html.unescape(re.sub("<.*?>", "", shown)) == text


def test_colours():
    page = coloured("if a", ["keyword"] * 2 + ["space", "name"], ["keyword"] * 4)
    assert page.count("<span") == 3 and page.count("outline") == 2
    assert "outline" not in coloured("if a", ["keyword"] * 4)


KINDS = {"k": "keyword", "_": "space", "n": "name", "o": "operator", "c": "comment",
         "d": "definition", "b": "builtin", "#": "number", "s": "string"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("if x1: pass", "kk_nno_kkkk"),
        ("class A:\n\tdef f(): ...", "kkkkk_do__kkk_dooo_ooo"),
        ("print(s.print, 1.5e3)", "bbbbbononnnnno_#####o"),
        ('a = """x\n  é\n"""  # no\n', "n_o_ssssssssssss__cccc_"),
        ("x = \\\n 0x_f\n", "n_o____####_"),
        ("π, é = b'', r'x'", "no_n_o_ssso_ssss"),
    ],
)
def test_kinds_of_tokens(text, tags):
    assert source.tags_of(text) == [KINDS[tag] for tag in tags]


def test_python_library(monkeypatch, tmp_path):
    """No module that is tested is trained on; all are there."""
    parts = [modules.split() for modules in source.MODULES.values()]
    every = [module for part in parts for module in part]
    assert len(every) == len(set(every))
    monkeypatch.setattr(
        source, "MODULES", {k: v.split()[0] for k, v in source.MODULES.items()}
    )
    found = source.modules()
    for texts in found.values():
        text, tags = texts[0]
        assert len(text) == len(tags) > 1000
        # the words of a keyword's characters are keywords
        runs = itertools.groupby(zip(text, tags, strict=True), lambda pair: pair[1])
        words = {"".join(c for c, _ in run) for tag, run in runs if tag == "keyword"}
        assert words <= {*source.keyword.kwlist} and {"def", "if", "return"} <= words
    monkeypatch.setattr(source.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="no source of Python's library"):
        source.modules()


@nnx.jit
def scores_of(model, batch):
    return model(batch)


@nnx.jit
def everything(model, batch):
    """Scores, the loss and its count, and the answers."""
    return model(batch), *loss(model, batch), decode(model, batch)


def some_batch(settings):
    """A model, and a batch of two sentences padded to three."""
    rows = [Sentence(["ab", "b", "ab"], ["X", "Y", "Z"]), Sentence(["cc"], ["Z"])]
    vocabulary = Vocabulary(*known(rows, settings), ["X", "Y", "Z"])
    model = Tagger(settings, vocabulary, rngs=nnx.Rngs(1))
    encoded, letters = encode(rows, vocabulary, settings)
    (bucket,) = data.bucketed(encoded, letters, settings)
    return model, bucket.collate([0, 1], bucket.size), encoded, letters


@pytest.mark.parametrize("crf", [False, True])
def test_loss_and_answers_by_enumeration(crf):
    """Against all ways to tag the two sentences."""
    settings = Settings(**{**TINY, "longest": 8, "batch": 24}, letters=True, crf=crf)
    model, batch, _, _ = some_batch(settings)
    model.eval()
    scores, total, n, said = map(np.asarray, everything(model, batch))
    assert n == 4 and batch.words.shape == (3, 8)
    start, moves, end = np.zeros(3), np.zeros((3, 3)), np.zeros(3)
    if crf:
        assert model.crf is not None
        moves, start, end = (np.asarray(w, np.float64) for w in model.crf.params)
    expected = 0.0
    for row, truth in enumerate(([0, 1, 2], [2])):
        values = {}
        for tags in itertools.product(range(3), repeat=len(truth)):
            value = sum(scores[row, t, tag] for t, tag in enumerate(tags))
            value += sum(moves[a, b] for a, b in itertools.pairwise(tags))
            values[tags] = value + start[tags[0]] + end[tags[-1]]
        expected += np.logaddexp.reduce([*values.values()]) - values[tuple(truth)]
        assert said[row, : len(truth)].tolist() == [
            *max(values, key=values.__getitem__)
        ]
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_padding_and_company_change_nothing():
    """A word alone, unpadded, its letters too, has its scores among others."""
    settings = Settings(**{**TINY, "longest": 8, "batch": 24}, letters=True, jamo=True)
    model, batch, encoded, letters = some_batch(settings)
    model.eval()
    forms = encoded[1].forms[None]
    alone = data.Batch(
        encoded[1].words[None], np.array([1], np.int32), encoded[1].tags[None],
        np.zeros_like(forms), Same(letters.parts[forms[0], :2]),
        Same(letters.lengths[forms[0]]),
    )  # fmt: skip
    own, among = scores_of(model, alone), scores_of(model, batch)
    np.testing.assert_allclose(own[0], among[1, :1], atol=1e-5)


def test_dropped_words_are_unknown():
    """Nearly all of them: the scores are those of unknown words."""
    settings = Settings(**TINY, word_dropout=0.999999, dropout=0.0)
    model, batch, _, _ = some_batch(settings)
    none = batch._replace(words=np.full_like(batch.words, UNKNOWN))
    dropped = scores_of(model, batch)
    model.eval()
    kept, unknown = scores_of(model, batch), scores_of(model, none)
    np.testing.assert_allclose(dropped[0, :3], unknown[0, :3], atol=1e-6)
    assert np.abs(kept[0, :3] - unknown[0, :3]).max() > 0.01


def test_words_and_letters_as_numbers():
    settings = Settings(data="x", letters=True, jamo=True, longest_word=4)
    rows = [Sentence(["한글", "Über", "über", "abcdefg"], list("ABBA")),
            Sentence(["한국", "글"], list("AB"))]  # fmt: skip
    vocabulary = Vocabulary(*known(rows, settings), ["A", "B"])
    assert vocabulary.words == ["über"]  # which is met twice, once with a capital
    assert {"한", "글", "ᄒ", "ᅡ", "ᆫ", "b"} <= {*vocabulary.letters}
    assert not {"국", "Ü", "c"} & {*vocabulary.letters}  # in one word each
    encoded, letters = encode(
        [*rows, Sentence(["한글", "ㅋ"], [])], vocabulary, settings
    )
    assert [row.words.tolist() for row in encoded] == [[1, 2, 2, 1], [1, 1], [1, 1]]
    assert [row.tags.tolist() for row in encoded] == [[0, 1, 1, 0], [0, 1], [0, 0]]
    names = {i: name for i, name in enumerate(vocabulary.letters, 2)}
    read = lambda form: [
        "".join(names.get(p, "?") for p in parts if p)
        for parts in letters.parts[form][: letters.lengths[form]].tolist()
    ]
    forms = [form for row in encoded for form in row.forms.tolist()]
    assert forms[0] == forms[6] and len({*forms}) == 7
    assert read(forms[0]) == ["한ᄒ" + "ᅡᆫ", "글ᄀ" + "ᅳᆯ"]
    assert spelling("abcdefg", settings) == "abfg"
    assert read(forms[7]) == ["?"] and read(0) == []


def test_every_word_is_in_a_batch_with_its_letters():
    settings = Settings(**{**TINY, "data": "x", "letters": True})
    rows = [Sentence(*row) for row in made_up(50)]
    rows.append(Sentence(*(x * 3 for x in made_up(1, 5)[0])))
    vocabulary = Vocabulary([], [*"abcdefiotu"], ["C", "TOC", "TOV", "V"])
    encoded, letters = encode(rows, vocabulary, settings)
    pieces = data.cut(encoded, settings)
    assert len(pieces) > len(rows) and max(len(p.words) for p in pieces) == 8
    seen = []
    for batch, _ in buckets.once(data.bucketed(pieces, letters, settings)):
        assert batch.words.shape == (30, 8) and len(batch.letters.value) <= 241
        parts, lengths = batch.letters.value, batch.letter_lengths.value
        for b, n in enumerate(batch.lengths):
            for t in range(n):
                form = batch.forms[b, t]
                spelt = "".join(
                    vocabulary.letters[p - 2] for p in parts[form, : lengths[form], 0]
                )
                seen.append((spelt, vocabulary.tags[batch.tags[b, t]]))
    every = [pair for row in rows for pair in zip(row.words, row.tags, strict=True)]
    assert sorted(seen) == sorted(every)


def test_windows():
    for n in range(1, 90):
        found = data.windows(n, 16, 4)
        kept = [i for _, _, low, high in found for i in range(low, high)]
        assert kept == [*range(n)]
        for start, end, low, high in found:
            assert 0 <= start <= low < high <= end <= n and end - start == min(n, 16)
            assert low - start >= 4 or low == 0
            assert end - high >= 4 or high == n


def test_long_sentences_are_tagged_whole():
    """In windows; a word's tag depends on what is near alone in this model."""
    settings = Settings(**{**TINY, "data": "x", "longest": 12, "batch": 24})
    vocabulary = Vocabulary(["a", "b"], [], ["A", "B"])
    model = Tagger(settings, vocabulary, rngs=nnx.Rngs(0))
    answers = experiment.Answers(model, settings, vocabulary)
    words = [random.Random(1).choice("ab") for _ in range(50)]
    said = answers([Sentence(words, []), Sentence(words[:3], [])])
    assert [*map(len, said)] == [50, 3] and {*said[0]} <= {"A", "B"}
    expected = []
    for start, end, low, high in data.windows(50, 12, 3):
        part = answers([Sentence(words[start:end], [])])[0]
        expected += part[low - start : high - start]
    assert said[0] == expected


def test_types_of_korean_entities():
    assert corpus.typed(["O", "B_PS", "I", "B_DT", "O", "B_PS", "I", "I"]) == [
        "O", "B-PS", "I-PS", "B-DT", "O", "B-PS", "I-PS", "I-PS"
    ]  # fmt: skip


def entities(tags):
    """Spans of entities, by the letter of the scheme."""
    spans, at = set(), 0
    while at < len(tags):
        end = at + 1
        if tags[at] != "O":
            while end < len(tags) and tags[end] == f"I-{tags[at][2:]}":
                end += 1
            spans.add((tags[at][2:], at, end))
        at = end
    return spans


def test_scores_of_entities():
    chance = random.Random(0)
    names = ["O", "O", "B-X", "I-X", "B-Y", "I-Y"]
    truth, said = [], []
    for _ in range(60):
        tags = [chance.choice(names) for _ in range(chance.randint(1, 8))]
        truth.append(tags)
        said.append([chance.choice([t, t, t, chance.choice(names)]) for t in tags])
    words = [[f"w{chance.randrange(40)}" for _ in tags] for tags in truth]
    test = [Sentence(*pair) for pair in zip(words, truth, strict=True)]
    old = [Sentence([f"w{i}" for i in range(0, 40, 2)], [])]
    loaded = data.Corpus(old, [], test, Vocabulary([], [], sorted({*names})))
    found = experiment.scores(said, loaded)
    pairs = [(entities(t), entities(s)) for t, s in zip(truth, said, strict=True)]
    right = sum(len(t & s) for t, s in pairs)
    precision = 100 * right / sum(len(s) for _, s in pairs)
    recall = 100 * right / sum(len(t) for t, _ in pairs)
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall)
    f1 = 2 * precision * recall / (precision + recall)
    assert found["F1"] == pytest.approx(f1)
    rows = [
        (int(w[1:]) % 2 == 1, t == s)
        for row in zip(words, truth, said, strict=True)
        for w, t, s in zip(*row, strict=True)
    ]
    assert found["accuracy"] == pytest.approx(100 * np.mean([ok for _, ok in rows]))
    assert found["accuracy, words not met"] == pytest.approx(
        100 * np.mean([ok for new, ok in rows if new])
    )


def test_without_letters_there_is_no_jamo(tmp_path, capsys, monkeypatch):
    found = []

    def load(settings, data_dir):
        found.append((settings.letters, settings.jamo))
        raise InputError("enough")

    stopped = replace(experiment.EXPERIMENT, data=SimpleNamespace(load=load))
    monkeypatch.setattr(experiment, "EXPERIMENT", stopped)
    for options in ([], ["--no-letters"]):
        line = ["train", "--out", str(tmp_path / "out"), "--data", "kmou_ner"]
        assert "enough" in error(capsys, main([*line, *options]))
    assert found == [(True, True), (False, False)]


def test_entities_of_ones_own(tmp_path, capsys):
    """One file, of which a tenth each is held out and tested; three columns."""
    rows = [[f"w{i % 7} x {'B-A' if i % 7 < 2 else 'O'}", "y x I-A" if i % 7 < 2 else
             "y x O", f"u{i} x O"] for i in range(60)]  # fmt: skip
    path = tmp_path / "own.conll"
    path.write_text("\n\n".join("\n".join(row) for row in rows))
    out = tmp_path / "run"
    assert run(out, "--data", path, "--letters") == 0
    assert {"accuracy", "F1", "precision", "recall"} <= result_of(out)["scores"].keys()
    page = (out / "report.html").read_text()
    assert "Types of entities" in page and "weights of the CRF" not in page
    assert "48 texts to train on, 6 held out, 6 to test" in capsys.readouterr().out


@pytest.mark.long
def test_a_stopped_run_goes_on(files, tmp_path):
    whole = tmp_path / "whole"
    options = [*files, *WORDS, "--no-letters", "--crf", "--dropout", 0.3]
    options = [*map(str, options), "--steps", "6"]
    assert main(["train", "--out", str(whole), *options]) == 0
    resumes(main, whole, tmp_path / "cut", *options)


def test_mistakes_of_the_user_are_told_in_one_line(files, tmp_path, capsys):
    out = tmp_path / "run"
    told = lambda *options: error(capsys, run(out, *options))
    path = tmp_path / "bad.conll"
    line = told("--data", tmp_path / "none")
    assert "none: neither a file nor one of python, ud_en_ewt" in line
    path.write_text("a X\nb Y\n\nc\n")
    assert "bad.conll, line 4: 1 columns, 2 expected" in told("--data", path)
    path.write_text("a X\nb Y\n")
    assert "bad.conll: 1 sentences, 10 needed" in told("--data", path)
    assert "--dev and --test: both are needed" in told(*files[:4])
    path.write_text("")
    assert "bad.conll: no sentence there" in told(*files[:4], "--test", path)
    path.write_text("\n\n".join(f"{i} X" for i in range(20)))
    assert "all words have the tag ['X']" in told("--data", path)
    assert "none.conll: No such file" in told(*files[:4], "--test", "none.conll")
    line = told("--data", "ud_ko_kaist")
    assert "ud_ko_kaist: cannot be downloaded as a file; --data-dir takes" in line
    line = told("--data", "wnut17", "--data-dir", tmp_path)
    assert "no wnut17train.conll of wnut17 there" in line
    line = told("--no-letters", "--jamo")
    assert "--jamo: changes nothing without --letters" in line
    line = told("--data-dir", tmp_path)
    assert "--data-dir: changes nothing with the data python" in line
    assert not out.exists()
    tag = ["tag", "--run", str(out)]
    assert "no checkpoint there" in error(capsys, main(tag))


@real
@pytest.mark.parametrize(
    ("name", "words", "tags", "entities"),
    [
        ("ud_en_ewt", (204_577, 25_147, 25_094), 17, False),
        ("ud_ko_gsd", (56_687, 11_958, 11_677), 16, False),
        ("ud_ko_kaist", (296_446, 25_278, 28_366), 17, False),
        ("wnut17", (62_730, 15_733, 23_394), 13, True),
        ("kmou_ner", (114_256, 14_077, 13_799), 11, True),
    ],
)
def test_data_sets(name, words, tags, entities):
    loaded = corpus.sentences(preset({"data": name}), REAL)
    counts = tuple(sum(len(s.words) for s in part) for part in loaded)
    found = {tag for part in loaded for s in part for tag in s.tags}
    assert (counts, len(found)) == (words, tags)
    assert (scheme(found) == "BIO") == entities
    if entities:  # no I without its B: what is typed is whole
        for sentence in loaded[2]:
            before = "O"
            for tag in sentence.tags:
                assert tag[0] != "I" or before[2:] == tag[2:], sentence
                before = tag


def test_kaist_cannot_be_downloaded():
    with pytest.raises(InputError, match="cannot be downloaded as a file"):
        datasets.fetch("ud_ko_kaist", "kaist.dev.tsv")
