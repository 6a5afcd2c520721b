"""Translation as its user runs it: train, kill, resume, translate, mistakes."""

import gzip
import io
import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from experiments.data import Pair
from experiments.errors import InputError
from experiments.translation import (
    batches,
    compare,
    corpus,
    dates,
    evaluate,
    vocabulary,
)
from experiments.translation.__main__ import main
from experiments.translation.settings import MODELS, Settings, defaults
from experiments.translation.train import Trainer
from experiments.translation.translate import Search, Translator
from experiments.translation.vocabulary import END, START, UNKNOWN
from tests.experiments import (  # noqa: F401
    ROOT,
    as_users_have_it,
    error,
    kill_at_first_checkpoint,
    went_on,
)

SMALL = """--hidden 16 --embedding 8 --heads 2 --tokens 256 --steps 20 --pieces 0
--longest 64""".split()
NUMBERS = "abcdefghij"  # short, so that there is one shape to compile for


@pytest.fixture
def table(tmp_path):
    """Digits and letters for them."""
    path = tmp_path / "digits.tsv"
    chance = random.Random(0)
    rows = []
    for _ in range(200):
        digits = [chance.randrange(10) for _ in range(chance.randint(1, 2))]
        words = " ".join(NUMBERS[d] for d in digits)
        rows.append(" ".join(map(str, digits)) + "\t" + words)
    path.write_text("\n".join(rows) + "\n")
    return path


def train(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def typed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("model", MODELS)
def test_train_evaluate_translate_report(model, table, tmp_path, capsys, monkeypatch):
    out = tmp_path / model
    assert train(out, "--data", table, "--model", model) == 0
    printed = capsys.readouterr().out
    bleu, perplexity = re.search(
        r"BLEU ([\d.]+), perplexity ([\d.]+)", printed
    ).groups()
    page = (out / "report.html").read_text()
    assert f"<b>{bleu}</b>" in page and f"<b>{perplexity}</b>" in page
    assert "data:image/png;base64," in page and "version:2" in page
    assert ("What each token" in page) == (model != "plain")
    result = json.loads((out / "evaluation-test.json").read_text())
    assert len(result["rows"]) == result["pairs"] == 10
    if model not in ("bahdanau", "transformer"):  # the same code for all
        return
    # the checkpoint gives what the training ended with
    assert main(["evaluate", "--run", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"BLEU {bleu}, perplexity {perplexity}" in printed
    if model != "bahdanau":
        return
    # a file, and line by line
    lines = tmp_path / "lines.txt"
    lines.write_text("1 2\n3\n")
    run = ["--run", str(out)]
    assert main(["translate", *run, "--input", str(lines)]) == 0
    written = capsys.readouterr().out
    assert len(written.splitlines()) == 2
    typed(monkeypatch, b"1 2\n\n3\n")
    assert main(["translate", *run]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        written.splitlines()[0], "", written.splitlines()[1]
    ]  # fmt: skip
    assert "line 2: an empty sentence" in printed.err
    assert main(["translate", *run, "--input", str(lines), "--n-best", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()
    scores = [float(row.split()[0]) for row in rows]
    assert len(rows) == 6 and scores[:3] == sorted(scores[:3], reverse=True)
    both = tmp_path / "both"
    assert main(["report", "--runs", str(out), "--out", str(both)]) == 0
    page = (both / "report.html").read_text()
    assert f"{float(bleu):.1f}" in page
    assert (both / "attention-1-1-1.png").exists()
    # its rows are read again
    path, again = both / "results.jsonl", tmp_path / "again"
    options = ["--results", str(path), "--out", str(again)]
    assert main(["report", *options]) == 0
    assert (again / "results.jsonl").read_text() == path.read_text()
    assert main(["report", *options, "--runs", str(out)]) == 0
    assert (again / "results.jsonl").read_text() == path.read_text()  # once


def test_learns_dates():
    """All that there is to know of a date's format, in a few hundred small steps."""
    settings = replace(defaults("dates", "bahdanau"), hidden=64, embedding=32,
                       steps=300, tokens=1024)  # fmt: skip
    loaded = corpus.load(settings, None)
    short = lambda examples: [e for e in examples if len(e[0]) < 12]  # of one shape
    loaded = loaded._replace(
        train=short(loaded.train),
        validation=short(loaded.validation),
        test=[pair for pair in loaded.test if len(pair.source) < 11],
    )
    trainer = Trainer(settings, loaded)
    np.testing.assert_allclose(
        trainer.evaluate(), np.log(len(loaded.vocabularies[1])), atol=0.5
    )
    while trainer.step < settings.steps:
        trainer.advance()
    translator = Translator(settings, trainer.state.weights, loaded.vocabularies)
    result = evaluate.evaluate(translator, loaded.test[:200], Search(beam=2))
    assert result["exact"] > 0.8
    row = result["rows"][0]
    weights, sources, targets = translator.attention(row["source"], row["tokens"])
    assert weights.shape == (len(targets), len(sources))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert "".join(targets[:-1]).strip() == row["hypothesis"]


def test_killed_and_resumed_runs_equal_an_uninterrupted_one(table, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ["--data", table, "--steps", 300, "--dropout", 0.2]
    assert train(whole, *options) == 0
    kill_at_first_checkpoint("experiments.translation", cut, *SMALL, *options)
    capsys.readouterr()
    assert train(cut, *options, "--resume") == 0
    went_on(capsys)
    results = [
        json.loads((p / "evaluation-test.json").read_text()) for p in (whole, cut)
    ]
    for name in ("perplexity", "bleu", "rows"):
        assert results[0][name] == results[1][name]


def test_own_parallel_files(tmp_path, capsys):
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("".join(f"{i} {i % 7}\n" for i in range(50)))
    b.write_text("".join(f"{i % 7} {i}\n" for i in range(50)))
    assert train(tmp_path / "run", "--data", a, "--target", b) == 0
    b.write_text("".join(f"{i % 7} {i}\n" for i in range(49)))
    line = error(capsys, train(tmp_path / "other", "--data", a, "--target", b))
    assert "a.txt has 50 lines" in line and "line 50 has no pair" in line
    assert not (tmp_path / "other").exists()


def test_bad_pairs_are_told_with_their_line(table, tmp_path, capsys):
    out = tmp_path / "run"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([*rows[:4], "1 2\t", *rows[5:]]))
    assert "digits.tsv, line 5: an empty sentence" in error(
        capsys, train(out, "--data", table)
    )
    table.write_text("\n".join([*rows[:4], "no tab", *rows[5:]]))
    assert "digits.tsv, line 5: 1 columns, 2 expected" in error(
        capsys, train(out, "--data", table)
    )
    table.write_text("\n".join([*rows[:4], "1 " * 100 + "\tone", *rows[5:]]))
    line = error(capsys, train(out, "--data", table))
    assert re.search(r"digits.tsv, line 5: a sentence of \d+ tokens; with .*64", line)
    table.write_text("\n".join(rows[:5]))
    assert "5 pairs, at least 10" in error(capsys, train(out, "--data", table))
    line = error(capsys, train(out, "--data", tmp_path / "none.tsv"))
    assert "none.tsv: neither a file nor one of dates, multi30k" in line
    assert not out.exists()


def test_what_is_too_long_is_told_before_the_training(tmp_path):
    """Whichever part it is drawn into."""
    path = tmp_path / "pairs.tsv"
    settings = Settings(data=str(path), held_out=0.3, longest=20)
    for i in range(12):
        path.write_text("".join(f"a {k}{'a' * 30 * (k == i)}\tc\n" for k in range(12)))
        with pytest.raises(InputError, match=rf"line {i + 1}: a sentence of \d\d tok"):
            corpus.load(settings, None)


def test_tables_of_ones_own(tmp_path):
    rows = [f'"Ich, du {i}",me {i}' for i in range(12)]
    load = lambda path, **how: corpus.own_pairs(Settings(data=str(path), **how))
    path = tmp_path / "pairs.CSV"
    path.write_text("\ufeff" + "\r\n".join(["source,target", *rows]) + "\r\n")
    found = load(path, header=True)
    assert len(found) == 12 and found[0][:2] == ("Ich, du 0", "me 0")
    assert found[0].place.endswith("line 2")
    assert len(load(path)) == 13
    packed = tmp_path / "pairs.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [pair[:2] for pair in load(packed)] == [pair[:2] for pair in load(path)]
    path.write_text("\n".join([*rows, "Ich, du,me"]))
    with pytest.raises(
        InputError, match=r"line 13: 3 columns, 2 expected .a table of c"
    ):
        load(path)
    path.write_text("\n".join([rows[0], '"Ich, du,me', *rows]))
    with pytest.raises(InputError, match="line 2: "):
        load(path)
    lines = tmp_path / "pairs.tsv"  # a line separator of Unicode ends no line
    lines.write_text('a "b\tc\nd\u2028e\tf\n')
    assert [pair[:2] for pair in load(lines)] == [('a "b', "c"), ("d\u2028e", "f")]
    lines.write_text("a b\n")
    with pytest.raises(InputError, match=r"1 columns, 2 expected .a table of tabs; or"):
        load(lines)


def test_unknown_characters_are_told():
    made = vocabulary.make(["abc"] * 9, 0), vocabulary.make(["xyz"] * 9, 0)
    pairs = [Pair("ab", "xy", "f, line 1"), Pair("aß", "xy", "f, line 2")]
    assert corpus.unknown(pairs[:1], made) is None
    line = corpus.unknown([*pairs, Pair("a", "€", "f, line 3")], made)
    assert line.startswith("f, line 2: 'ß' not in the vocabulary")
    assert line.endswith("(and in 1 more sentences)")


def test_a_run_that_is_spoilt_is_not_saved(table, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--model", "plain", "--warmup", 0, "--save-seconds", 0]
    rate = ["--learning-rate", 1e38]
    line = error(capsys, train(out, "--data", table, *options, *rate))
    assert "the weights are spoilt at step 1" in line and "no checkpoint" in line
    assert train(out, "--data", table, *options, "--steps", 2, "--resume") == 0
    more = ["--steps", 4, "--resume", *rate]
    line = error(capsys, train(out, "--data", table, *options, *more))
    assert "the last checkpoint is of step 2" in line
    assert main(["evaluate", "--run", str(out)]) == 0


def test_no_space_for_a_checkpoint(table, tmp_path, capsys, monkeypatch):
    full = lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr("experiments.checkpoint.shutil.disk_usage", full)
    out = tmp_path / "run"
    line = error(capsys, train(out, "--data", table, "--model", "plain"))
    assert "no space left for a checkpoint" in line
    assert not any(p.name.isdigit() for p in out.glob("checkpoints/*"))


def test_a_reader_that_has_enough():
    code = """
from experiments.command import answer
def run():
    for _ in range(10**5):
        print("line")
answer("x", run)
"""
    command = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "line\n" and done.stderr == ""


def test_bad_options(table, tmp_path, capsys):
    out = tmp_path / "run"
    given = lambda *options: error(capsys, train(out, "--data", table, *options))
    assert "--heads 3: not a divisor" in given("--model", "transformer", "--heads", 3)
    assert "--heads 3: not a divisor" in given("--score", "multi_head", "--heads", 3)
    assert "--feed" in given("--feed")
    assert "--score" in given("--model", "plain", "--score", "general")
    line = error(capsys, main(["translate", "--run", str(tmp_path), "--n-best", "9"]))
    assert "--n-best 9: more than --beam 5" in line
    assert "no checkpoint" in error(capsys, main(["translate", "--run", str(tmp_path)]))
    for option, value in (("--steps", "0"), ("--dropout", "1"), ("--model", "gpt")):
        with pytest.raises(SystemExit) as stopped:
            train(out, option, value)
        assert stopped.value.code == 2
        assert option in capsys.readouterr().err


def test_a_finished_run_and_its_mistakes(table, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    assert train(out, "--data", table) == 0
    capsys.readouterr()
    assert "--resume goes on" in error(capsys, train(out, "--data", table))
    line = error(capsys, train(out, "--data", table, "--resume", "--hidden", 32))
    assert "--hidden 32" in line and "was made with 16" in line
    run = ["translate", "--run", str(out)]
    path = tmp_path / "in.txt"
    path.write_text("1\n\n2\n")
    line = error(capsys, main([*run, "--input", str(path)]))
    assert "in.txt, line 2: an empty sentence" in line
    path.write_text("1\n" + "1 " * 80 + "\n")
    line = error(capsys, main([*run, "--input", str(path)]))
    assert re.search(r"in.txt, line 2: a sentence of \d+ tokens; the model takes", line)
    path.write_text("1\n2 ß\n")
    assert main([*run, "--input", str(path)]) == 0
    printed = capsys.readouterr()
    assert "in.txt, line 2: 'ß' not in the vocabulary" in printed.err
    assert len(printed.out.splitlines()) == 2
    # one that is too long does not end a session
    typed(monkeypatch, b"1 " * 80 + b"\n\xff\n1\n")
    assert main(run) == 0
    printed = capsys.readouterr()
    assert "line 1: a sentence of" in printed.err
    assert len(printed.out.splitlines()) == 3
    assert "line 2: not utf-8 text" in printed.err
    # an evaluation of other weights than those of the checkpoint
    both = ["report", "--runs", str(out), "--out"]
    assert "holds a run" in error(capsys, main([*both, str(out)]))
    result = out / "evaluation-test.json"
    before = result.read_text()
    result.write_text(before.replace('"step": 20', '"step": 19'))
    line = error(capsys, main([*both, str(tmp_path / "both")]))
    assert "trained further since it was evaluated" in line
    result.write_text(before[:100])
    line = error(capsys, main([*both, str(tmp_path / "both")]))
    assert "evaluation-test.json: not a result of a run" in line
    result.write_text(before)
    # other pairs under the same name
    rows = table.read_text()
    table.write_text(rows + "7\tseven\n")
    line = error(capsys, train(out, "--data", table, "--resume"))
    assert "not the pairs that the checkpoint" in line
    line = error(capsys, main(["evaluate", "--run", str(out)]))
    assert "not the pairs that the checkpoint" in line
    table.write_text(rows)
    # another vocabulary under the checkpoint
    other = vocabulary.make(["abcdef"] * 5, 0)
    (out / "source.model").write_bytes(other.model)
    line = error(capsys, main(run))
    assert "source.model: another vocabulary than that of the checkpoint" in line
    (out / "source.model").write_bytes(b"nothing")
    assert "source.model: not a vocabulary" in error(capsys, main(run))
    (out / "source.model").unlink()
    assert "source.model: No such file" in error(capsys, main(run))


def test_vocabulary():
    texts = ["der hund läuft", "ein mann läuft"] * 20
    for size in (0, 60):
        made = vocabulary.make(texts, size)
        assert [made.pieces.id_to_piece(i) for i in (END, UNKNOWN, START)] == [
            "</s>", "<unk>", "<s>"
        ]  # fmt: skip
        assert made.decode(made.encode(texts[0])) == texts[0]
        with pytest.raises(
            InputError, match="--pieces 5: too few for texts of 14 char"
        ):
            vocabulary.make(texts, 5)
        assert made.unknown("der ß hund €") == ["ß", "€"]
        again = vocabulary.Vocabulary(made.model)
        assert again.digest == made.digest and len(again) == len(made)
    assert len(vocabulary.make(texts, 60).encode(texts[0])) < len(texts[0])


def test_batches():
    chance = random.Random(0)
    draw = lambda: [chance.randrange(3, 999) for _ in range(chance.randrange(1, 60))]
    examples = [(draw(), draw()) for _ in range(300)]
    # once: every example in its place, with its lengths
    seen = []
    for batch, places in batches.once(examples, 512):
        assert batch.sources.size <= 512 and batch.inputs.size <= 512
        assert not batch.lengths[len(places) :].any()
        for row, place in enumerate(places):
            source, target = examples[place]
            assert batch.lengths[row] == len(source) + 1
            assert batch.sources[row].tolist()[: len(source) + 1] == [*source, END]
            assert batch.inputs[row].tolist()[: len(target) + 1] == [START, *target]
            assert batch.targets[row].tolist()[: len(target) + 1] == [*target, END]
            assert not batch.targets[row, len(target) + 1 :].any()
        seen += places
    assert sorted(seen) == list(range(300))
    # endless: any batch by its number, the same again, with each example about as often
    made = batches.training(examples, 512, seed=1)
    for i in (0, 7, 1000):
        again = batches.training(examples, 512, seed=1)[i]
        assert all((a == b).all() for a, b in zip(made[i], again, strict=True))
    count = {tuple(s): 0 for s, _ in examples}
    for i in range(1000):
        batch = made[i]
        for row, n in zip(batch.sources.tolist(), batch.lengths, strict=True):
            count[tuple(row[: n - 1])] += 1
    counts = np.array([*count.values()])
    assert counts.min() > 0.5 * counts.mean() and counts.max() < 1.5 * counts.mean()


def test_dates():
    train_pairs, validation, test = dates.load(days=3000, test_days=200)
    days = [{pair.target for pair in part} for part in (train_pairs, validation, test)]
    assert not days[0] & days[2] and not days[0] & days[1] and not days[1] & days[2]
    assert {pair.place.split(",")[0] for pair in train_pairs} == set(dates.LANGUAGES)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", p.target) for p in train_pairs)
    assert dates.load(days=3000, test_days=200)[2] == test
    date = dates.datetime.date(2001, 3, 9)
    assert dates.written(date, "de", "long") == "9. März 2001"
    assert dates.written(date, "ko", "long") == "2001년 3월 9일"


def test_joined_sentences():
    pairs = [Pair(f"a{i}", f"b{i}", f"file, line {i}") for i in range(100)]
    found = corpus.join(pairs, 4, seed=0, least=2)
    assert len(found) == 100 and {p.source.count(" ") for p in found} == {1, 2, 3}
    for pair, first in zip(found, pairs, strict=True):
        assert pair.target == pair.source.replace("a", "b")
        assert pair.source.startswith(first.source + " ")
        more = pair.source.count(" ")
        assert pair.place == f"{first.place} and {more} more joined to it"
    lower = corpus.prepared([Pair("ÄB c", "De", "x")], Settings(lower=True), 0, 1)
    assert lower == [Pair("äb c", "de", "x")]


def test_rows_of_several_seeds_are_one(tmp_path, capsys):
    part = {"low": 1, "high": 8, "n": 9, "mean": 5.0}
    parts = lambda *scores: [
        {**part, "low": low, "bleu": b} for low, b in zip((1, 9), scores, strict=True)
    ]
    search = {"beam": 5, "n_best": 1, "length_penalty": 1.0}
    row = lambda model, seed, bleu, **options: {
        "title": "pairs, test", "model": model, "bleu": bleu, "perplexity": 2.0,
        "weights": 1000, "minutes": 3.0, "pairs": 9, "signature": "lc",
        "search": search, "by_length": parts(bleu, bleu + 1),
        "settings": asdict(Settings(model=model, seed=seed, **options)),
    }  # fmt: skip
    wide = row("plain", 0, 9.0)
    wide["search"] = {**search, "beam": 10}
    rows = [
        row("luong", 0, 31.0, feed=True), row("luong", 0, 30.0),
        row("plain", 0, 11.0), row("plain", 1, 14.0), row("plain", 2, 12.5),
        row("plain", 0, 5.0, hidden=8), wide,
    ]  # fmt: skip
    named = compare.groups(rows)
    luong = asdict(Settings(model="luong", score="additive", feed=True))
    assert compare.label(luong) == "Luong attention (concat), input feeding"
    assert [*named] == [
        "no attention", "no attention (hidden 8)", "no attention (beam 10)",
        "Luong attention (general), input feeding", "Luong attention (general)",
    ]  # fmt: skip
    older = {k: v for k, v in rows[2]["settings"].items() if v not in (None, False)}
    assert [*compare.groups([rows[3], {**rows[2], "settings": older}])] == [
        "no attention"
    ]  # fmt: skip
    other = {**rows[2], "pairs": 8}
    assert compare.test_of(other) != compare.test_of(rows[2])
    assert compare.by_length(named["no attention"]) == parts(12.5, 13.5)
    assert "12.5 (11.0 to 14.0)" in compare.score_table(named)
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = ["report", "--results", str(path), "--out", str(tmp_path)]
    assert main(options) == 0
    assert (tmp_path / "length-1.png").exists()
    path.write_text(json.dumps(rows[0]) + "\n{}\n")
    line = error(capsys, main(options))
    assert "results.jsonl, line 2: not a result of a run" in line
    assert "--runs or --results" in error(capsys, main(options[:1]))


def test_bleu_and_lengths():
    """The figure of sacreBLEU's own example of a perfect and of an empty match."""
    rows = [
        {"source": "x " * n, "reference": "the cat sat on the mat " * 2,
         "hypothesis": "the cat sat on the mat " * 2 if n < 9 else "dogs"}
        for n in [4] * 30 + [10] * 30 + [40] * 5
    ]  # fmt: skip
    parts = evaluate.by_length(rows, lower=True)
    assert [(p["low"], p["n"]) for p in parts] == [(1, 30), (9, 30)]
    assert parts[0]["bleu"] == pytest.approx(100) and parts[1]["bleu"] < 1
    upper = [{**row, "hypothesis": row["hypothesis"].upper()} for row in rows[:30]]
    assert evaluate.bleu_of(upper, True)[0] == pytest.approx(100)
    assert evaluate.bleu_of(upper, False)[0] < 1
    assert "case:lc" in evaluate.bleu_of(upper, True)[1]
