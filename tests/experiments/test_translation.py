"""Translation as its user runs it: train, resume, translate, mistakes."""

import gzip
import io
import json
import random
import re
import shutil
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from flax import nnx

from experiments.frame import buckets
from experiments.frame.errors import InputError
from experiments.frame.experiment import Run
from experiments.frame.results import groups, score_rows
from experiments.frame.trainer import Trainer
from experiments.tables import Pair
from experiments.translation import data, dates, page, scores, vocabulary
from experiments.translation.__main__ import main
from experiments.translation.experiment import EXPERIMENT, result_of
from experiments.translation.settings import Settings, preset
from experiments.translation.translate import Search, Translator
from experiments.translation.vocabulary import END, START, UNKNOWN
from tests.experiments.helpers import error, refused, resumes

SMALL = """--hidden 16 --embedding 8 --heads 2 --tokens 256 --steps 5 --pieces 0
--longest 64 --dropout 0.2""".split()
NUMBERS = "abcdefghij"  # short, so that there is one shape to compile for


def write_table(path):
    """Digits and letters for them."""
    chance = random.Random(0)
    rows = []
    for _ in range(200):
        digits = [chance.randrange(10) for _ in range(chance.randint(1, 2))]
        words = " ".join(NUMBERS[d] for d in digits)
        rows.append(" ".join(map(str, digits)) + "\t" + words)
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "digits.tsv")


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "digits.tsv"
    return ["--data", str(write_table(path))]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """A short run, with Bahdanau's attention."""
    out = tmp_path_factory.mktemp("runs") / "bahdanau"
    assert train(out, *options) == 0
    return out


def train(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def typed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def told(found):
    bleu, perplexity, exact = found["scores"].values()
    return (
        f"{found['title']}: BLEU {bleu:.2f}, perplexity of a token {perplexity:.2f}, "
        f"exact match {exact:.1f}% of 10 sentences."
    )


def check_page(out, attends):
    body = (out / "report.html").read_text()
    found = json.loads((out / "result-test.json").read_text())
    bleu, perplexity, _ = found["scores"].values()
    assert f"<b>{bleu:.2f}</b>" in body and f"<b>{perplexity:.2f}</b>" in body
    assert "data:image/png;base64," in body and "version:2" in body
    assert ("What each token" in body) == attends
    assert len(found["sentences"]) == found["pairs"] == 10
    return found


@pytest.mark.every(2)
@pytest.mark.parametrize("model", ["plain", "luong", "transformer"])
def test_train_evaluate_report(model, options, tmp_path, capsys):
    out = tmp_path / model
    assert train(out, *options, "--model", model, "--steps", 2) == 0
    printed = capsys.readouterr().out
    found = check_page(out, model != "plain")
    assert told(found) in printed
    assert "digits.tsv: 180 pairs to train on, 10 held out, 10 to test" in printed
    assert "1 shapes of batches" in printed
    if model == "transformer":  # the same code for all
        # the checkpoint gives what the training ended with
        (out / "result-test.json").unlink()
        assert main(["evaluate", "--run", str(out)]) == 0
        assert told(found) in capsys.readouterr().out
        again = json.loads((out / "result-test.json").read_text())
        assert again["sentences"] == found["sentences"]


def test_translates_a_file_and_what_is_typed(whole, tmp_path, capsys, monkeypatch):
    lines = tmp_path / "lines.txt"
    lines.write_text("1 2\n3\n")
    run = ["translate", "--run", str(whole)]
    assert main([*run, "--input", str(lines)]) == 0
    written = capsys.readouterr().out
    assert len(written.splitlines()) == 2
    typed(monkeypatch, b"1 2\n\n3\n")
    assert main(run) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        written.splitlines()[0], "", written.splitlines()[1]
    ]  # fmt: skip
    assert "line 2: an empty sentence" in printed.err
    assert main([*run, "--input", str(lines), "--n-best", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()
    scores = [float(row.split()[0]) for row in rows]
    assert len(rows) == 6 and scores[:3] == sorted(scores[:3], reverse=True)


def test_report(whole, tmp_path, capsys):
    found = check_page(whole, True)
    both = tmp_path / "both"
    assert main(["report", "--runs", str(whole), "--out", str(both)]) == 0
    bleu = found["scores"]["BLEU"]
    assert f"| Bahdanau attention | 1 | {bleu:.1f} |" in capsys.readouterr().out
    body = (both / "report.html").read_text()
    assert f"{bleu:.1f}" in body and "Reference: " in body
    assert (both / "attention-1-1-1.png").exists()


def test_a_stopped_run_ends_as_the_whole_one(whole, options, tmp_path):
    resumes(main, whole, tmp_path / "cut", *SMALL, *options)


def test_learns_dates(monkeypatch):
    """All that there is to know of a date's format, in a few hundred small steps."""
    pairs = dates.load(days=8000, test_days=500)
    monkeypatch.setattr(dates, "load", lambda: pairs)
    settings = replace(
        preset({}), hidden=48, embedding=32, steps=140, tokens=512, learning_rate=1e-2
    )
    loaded = data.load(settings, None)
    source, target = made = vocabulary.of_facts(loaded.facts)
    parts = data.read(settings, None)
    train, validation = (  # of one shape
        [e for e in data.encoded(part, made, 100) if len(e[0]) < 12]
        for part in parts[:2]
    )
    groups = data.grouped(train, settings.tokens, data.BOUNDS)
    held_out = data.once(validation, settings.tokens)
    loaded = loaded._replace(
        train=buckets.Endless(groups, 0), held_out=[batch for batch, _ in held_out]
    )
    model = EXPERIMENT.model.make(settings, loaded.facts)
    trainer = Trainer(settings, model, EXPERIMENT.model.loss, loaded)
    np.testing.assert_allclose(trainer.evaluate(), np.log(len(target)), atol=0.5)
    while trainer.step < settings.steps:
        trainer.advance()
    run = Run(None, settings, loaded.facts, trainer.model, loaded, {})
    short = [pair for pair in parts[2] if len(pair.source) < 11]
    result = result_of(run, short[:100], "test", Search(beam=2))
    assert result.scores["exact match"] > 80
    row, translator = result.more["sentences"][0], Translator(run)
    weights, sources, targets = translator.attention(row["source"], row["tokens"])
    assert weights.shape == (len(targets), len(sources))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert "".join(targets[:-1]).strip() == row["hypothesis"]
    assert len(source) > len(target)


def test_what_is_shown_is_not_smoothed(options):
    """And dropout is drawn anew at each step, in the training alone."""
    settings = Settings(
        data=options[1], hidden=8, embedding=4, tokens=256, learning_rate=0.0,
        dropout=0.5, label_smoothing=0.4,
    )  # fmt: skip
    loaded = data.load(settings, None)
    loaded = loaded._replace(train=[loaded.train[0]] * 3, held_out=[loaded.train[0]])
    model = EXPERIMENT.model.make(settings, loaded.facts)
    trainer = Trainer(settings, model, EXPERIMENT.model.loss, loaded)
    losses = {float(trainer.advance()) for _ in range(3)}
    assert len(losses) == 3
    batch = loaded.train[0]

    @nnx.jit
    def run(model):
        return EXPERIMENT.model.loss(model, batch), model(*batch[:3])[0]

    (total, n, shown, _), logits = run(trainer.model)
    np.testing.assert_allclose(trainer.evaluate(), shown / n, rtol=1e-5)
    # smoothed, a tenth of a distribution is spread over all tokens
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = np.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]
    there = np.arange(own.shape[1]) < batch.target_lengths[:, None]
    np.testing.assert_allclose(shown, -(own * there).sum(), rtol=1e-5)
    mixed = 0.6 * own + 0.4 * log_p.mean(-1)
    np.testing.assert_allclose(total, -(mixed * there).sum(), rtol=1e-5)


def test_own_parallel_files(tmp_path, capsys):
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("".join(f"{i} {i % 7}\n" for i in range(50)))
    b.write_text("".join(f"{i % 7} {i}\n" for i in range(50)))
    loaded = data.load(Settings(data=str(a), target=str(b)), None)
    assert loaded.tests["test"][0].source.split() == [
        *reversed(loaded.tests["test"][0].target.split())
    ]
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
            data.load(settings, None)


def test_tables_of_ones_own(tmp_path):
    rows = [f'"Ich, du {i}",me {i}' for i in range(12)]
    load = lambda path, **how: data.own_pairs(Settings(data=str(path), **how))
    path = tmp_path / "pairs.CSV"
    path.write_text("\ufeff" + "\r\n".join(["source,target", *rows]) + "\r\n")
    found = load(path, header=True)
    assert len(found) == 12 and found[0][:2] == ("Ich, du 0", "me 0")
    assert found[0].place.endswith("line 2")
    assert len(load(path)) == 12 and len(load(path, header=False)) == 13
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
    with pytest.raises(
        InputError, match=r"1 columns, 2 expected .a table of tabs; see"
    ):
        load(lines)


def test_unknown_characters_are_told():
    made = vocabulary.make(["abc"] * 9, 0), vocabulary.make(["xyz"] * 9, 0)
    pairs = [Pair("ab", "xy", "f, line 1"), Pair("aß", "xy", "f, line 2")]
    assert data.unknown(pairs[:1], made) is None
    line = data.unknown([*pairs, Pair("a", "€", "f, line 3")], made)
    assert line.startswith("f, line 2: 'ß' not in the vocabulary")
    assert line.endswith("(and in 1 more sentences)")


def test_bad_options(options, tmp_path, capsys):
    out = tmp_path / "run"
    given = lambda *more: error(capsys, train(out, *options, *more))
    assert "--heads 3: not a divisor" in given("--model", "transformer", "--heads", 3)
    assert "--heads 3: not a divisor" in given("--score", "multi_head", "--heads", 3)
    assert "--feed" in given("--feed")
    assert "--score" in given("--model", "plain", "--score", "general")
    for option in (["--header"], ["--target", "x"], ["--columns", "source,target"]):
        line = error(capsys, train(out, *option))
        assert f"{option[0]}: changes nothing with the data dates" in line
    line = given("--target", "x", "--separator", "comma")
    assert "--separator: changes nothing with --target" in line
    line = error(capsys, main(["translate", "--run", str(tmp_path), "--n-best", "9"]))
    assert "--n-best 9: more than --beam 5" in line
    assert "no checkpoint" in error(capsys, main(["translate", "--run", str(tmp_path)]))
    for option, value in (("--pieces", "-1"), ("--held-out", "0"), ("--model", "gpt")):
        assert option in refused(capsys, main, "train", option, value)
    assert not out.exists()


def test_mistakes_with_a_finished_run(whole, tmp_path, capsys, monkeypatch):
    run = ["translate", "--run", str(whole)]
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
    line = error(capsys, main(["evaluate", "--run", str(whole), "--test",
                               "test_2017_flickr"]))  # fmt: skip
    assert "--test: other test sets are those of multi30k" in line


def test_a_run_goes_on_with_its_own_pairs_alone(whole, options, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "run")
    path = data.Path(options[1])
    rows = path.read_text()
    try:
        path.write_text(rows + "7\tseven\n")
        for command in (["train", "--out", str(out), "--resume"],
                        ["evaluate", "--run", str(out)]):  # fmt: skip
            line = error(capsys, main(command))
            assert "the checkpoint there was trained on other data" in line
    finally:
        path.write_text(rows)


def test_other_sentences_and_another_search(whole, capsys):
    """Each in a file of its own, under a title that says what it was."""
    command = ["evaluate", "--run", str(whole), "--joined", "2", "--beam", "2"]
    assert main(command) == 0
    path = whole / "result-test-joined-2-beam-2-1.json"
    found = json.loads(path.read_text())
    path.unlink()
    assert found["title"] == "digits.tsv, test, 2 sentences joined"
    assert found["search"] == {"beam": 2, "length_penalty": 1.0}
    assert (
        found["digest"]
        != json.loads((whole / "result-test.json").read_text())["digest"]
    )
    assert told(found) in capsys.readouterr().out


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
        facts = {"vocabularies": vocabulary.to_text([made, made])}
        for again in vocabulary.of_facts(json.loads(json.dumps(facts))):
            assert again.model == made.model and len(again) == len(made)
    assert len(vocabulary.make(texts, 60).encode(texts[0])) < len(texts[0])


def test_batches():
    chance = random.Random(0)
    # two widths: Grain draws from a hundred examples in as many milliseconds
    longest = [chance.choice((8, 60)) for _ in range(300)]
    draw = lambda n: [
        chance.randrange(3, 999) for _ in range(chance.randrange(n - 7, n))
    ]
    examples = [(draw(n), draw(n)) for n in longest]
    # once: every example in its place, with its lengths
    seen = []
    for batch, places in data.once(examples, 512):
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
    groups = data.grouped(examples, 512, data.BOUNDS)
    made = buckets.Endless(groups, seed=1)
    for i in (0, 7, 250):
        again = buckets.Endless(groups, seed=1)[i]
        assert all((a == b).all() for a, b in zip(made[i], again, strict=True))
    count = {tuple(s): 0 for s, _ in examples}
    for i in range(250):
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
    found = data.join(pairs, 4, seed=0, least=2)
    assert len(found) == 100 and {p.source.count(" ") for p in found} == {1, 2, 3}
    for pair, first in zip(found, pairs, strict=True):
        assert pair.target == pair.source.replace("a", "b")
        assert pair.source.startswith(first.source + " ")
        more = pair.source.count(" ")
        assert pair.place == f"{first.place} and {more} more joined to it"
    lower = data.prepared([Pair("ÄB c", "De", "x")], Settings(lower=True), 0, 1)
    assert lower == [Pair("äb c", "de", "x")]


def test_rows_of_several_seeds_are_one(tmp_path, capsys):
    part = {"low": 1, "high": 8, "n": 9, "mean": 5.0}
    parts = lambda *scores: [
        {**part, "low": low, "bleu": b} for low, b in zip((1, 9), scores, strict=True)
    ]
    search = {"beam": 5, "length_penalty": 1.0}
    row = lambda model, seed, bleu, **options: {
        "title": "pairs, test", "digest": "d", "weights": 1000,
        "scores": {"BLEU": bleu, "perplexity": 2.0},
        "minutes": 3.0, "pairs": 9, "signature": "lc",
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
    named = page.in_order(rows)
    luong = asdict(Settings(model="luong", score="additive", feed=True))
    assert page.label(luong) == "Luong attention (concat), input feeding"
    assert [*named] == [
        "no attention", "no attention (hidden 8)", "no attention (beam 10)",
        "Luong attention (general), input feeding", "Luong attention (general)",
    ]  # fmt: skip
    older = {k: v for k, v in rows[2]["settings"].items() if v not in (None, False)}
    same = [rows[3], {**rows[2], "settings": older}]
    assert [*groups(same, page.label)] == ["no attention"]
    assert page.by_length(named["no attention"]) == parts(12.5, 13.5)
    assert "12.5 (11.0 to 14.0)" in score_rows(named, {})[1][0]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    options = ["report", "--results", str(path), "--out", str(tmp_path)]
    assert main(options) == 0
    assert (tmp_path / "length-1.png").exists()
    body = (tmp_path / "report.html").read_text()
    assert "pairs, test: 9 sentences" in body
    assert "<p>sacreBLEU: lc; beam 5, length pen" in body
    # other sentences of the same name stand apart
    path.write_text(
        "".join(json.dumps(r) + "\n" for r in [rows[0], {**rows[1], "digest": "e"}])
    )
    assert main(options) == 0
    assert (tmp_path / "length-2.png").exists()


def test_bleu_and_lengths():
    """The figure of sacreBLEU's own example of a perfect and of an empty match."""
    rows = [
        {"source": "x " * n, "reference": "the cat sat on the mat " * 2,
         "hypothesis": "the cat sat on the mat " * 2 if n < 9 else "dogs"}
        for n in [4] * 30 + [10] * 30 + [40] * 5
    ]  # fmt: skip
    parts = scores.by_length(rows, lower=True)
    assert [(p["low"], p["n"]) for p in parts] == [(1, 30), (9, 30)]
    assert parts[0]["bleu"] == pytest.approx(100) and parts[1]["bleu"] < 1
    upper = [{**row, "hypothesis": row["hypothesis"].upper()} for row in rows[:30]]
    assert scores.bleu_of(upper, True)[0] == pytest.approx(100)
    assert scores.bleu_of(upper, False)[0] < 1
    assert "case:lc" in scores.bleu_of(upper, True)[1]
