"""Order: tasks that only order decides, and networks that are blind to it."""

import json
import random
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.order import data
from experiments.order.__main__ import main
from experiments.order.page import accuracies
from experiments.order.settings import MODELS, preset
from tests.experiments.helpers import (
    ROOT,
    before_step,
    error,
    interrupt,
    refused,
    same_runs,
)

SMALL = "--hidden 16 --embedding 8".split()


def train(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def accuracy(run):
    return json.loads((run / "result-test.json").read_text())["scores"]["accuracy"]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small standard library: some modules of the true one."""
    folder, true = tmp_path / "library", Path(sysconfig.get_path("stdlib"))
    (folder / "test").mkdir(parents=True)
    for name in "argparse mailbox random statistics tarfile threading".split():
        (folder / f"{name}.py").symlink_to(true / f"{name}.py")
    (folder / "own.py").write_text('''
def f():
    """Frobs the left hand, and then the other.  Gives up early.

    It's not in any other library, is it? This one has no full stop: and is long
    """
''')
    (folder / "test" / "other.py").write_text(
        '"""Frobs in a test are left out here."""'
    )
    monkeypatch.setattr(data.sysconfig, "get_path", lambda name: str(folder))
    data.sentences.cache_clear()
    yield folder
    data.sentences.cache_clear()


def test_only_order_tells_the_first_letter(tmp_path, capsys):
    """All five as a user trains them, and the page."""
    out = tmp_path / "out"
    options = ["--steps", 100, "--learning-rate", 0.015]
    assert train(out, *options) == 0
    found = {model: accuracy(out / "first" / model) for model in MODELS}
    # whatever the weights, but for what rounding does to a tie
    assert all(abs(found[blind] - 50) < 0.5 for blind in ("each", "bag"))
    assert all(found[model] > 95 for model in ("rnn", "lstm", "gru"))
    printed = capsys.readouterr().out
    lines = [line.split(" | ") for line in printed.splitlines() if "| 1 |" in line]
    names = [line[0].removeprefix("| ") for line in lines]
    assert names == ["each input alone", "bag of inputs", *(
        f"{model.upper()}, last" for model in ("rnn", "lstm", "gru")
    )]  # fmt: skip
    assert [line[2] for line in lines] == [f"{a:.1f}" for a in found.values()]
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and f"{found['gru']:.1f}" in page
    assert (out / "accuracy.png").exists()
    assert "holds a run already" in error(capsys, train(out, "--models", "gru"))


def test_shuffled_nobody_knows_the_first_letter():
    loaded = data.load(replace(preset({}), shuffled=True), None)
    a, b = (2 + loaded.facts["vocabulary"].index(letter) for letter in "ab")
    right = []
    for step in range(80):
        batch = loaded.train[step]
        first = (batch.x == a).argmax(1) < (batch.x == b).argmax(1)  # a stands first
        labels = [loaded.facts["labels"][label] for label in batch.labels]
        right += [*(np.array(labels) == np.where(first, "a first", "b first"))]
    assert len(right) == 4000 and 0.47 < np.mean(right) < 0.53


def test_first():
    parts = data.first(300)
    assert [len(part) for part in parts] == [480, 60, 60]
    for text, label in (row for part in parts for row in part):
        letters = re.sub("[^ab]", "", text)
        assert label == {"ab": "a first", "ba": "b first"}[letters]
    check_pairs(parts)
    assert data.first(300) == parts


def check_pairs(parts):
    """Each bag of words is as often of one class as of the other, in one part."""
    bags = []
    for part in parts:
        by_label = {}
        for text, label in part:
            bag = " ".join(sorted(text.split()))
            by_label.setdefault(label, Counter())[bag] += 1
        one, other = by_label.values()
        assert one == other
        bags.append(set(one))
    assert not (bags[0] & bags[1] or bags[0] & bags[2] or bags[1] & bags[2])


def test_sentences(library, tmp_path):
    found = data.documentation()
    assert "frobs the left hand and then the other" in found
    assert "it's not in any other library is it" not in found  # a question
    assert not any("frobs in a test" in s or "no full stop" in s for s in found)
    assert len(found) > 300 and len(set(found)) == len(found)
    assert all(6 <= len(text.split()) <= 20 for text in found)
    parts = data.sentences()
    check_pairs(parts)
    as_is = {text for part in parts for text, label in part if label == "in order"}
    mixed = {text for part in parts for text, label in part if label == "shuffled"}
    assert as_is == set(found) and not as_is & mixed
    options = ["--task", "sentences", "--steps", 30]
    assert train(tmp_path / "out", *options, "--models", "bag") == 0
    assert accuracy(tmp_path / "out" / "sentences" / "bag") == 50


def test_texts_of_ones_own_in_order_and_shuffled(tmp_path, capsys):
    """What words decide is not lost with their order."""
    path, chance = tmp_path / "own.tsv", random.Random(0)
    rows = []
    for i in range(200):
        words = [*chance.choices("uvwxyz", k=7), ("good", "bad")[i % 2]]
        chance.shuffle(words)
        rows.append(" ".join(words) + "\t" + ("plus", "minus")[i % 2])
    path.write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    options = ["--task", path, "--models", "bag", "--steps", 40]
    options += ["--word-dropout", 0, "--dropout", 0, "--learning-rate", 0.03]
    assert train(out, *options) == 0
    # what is finished stays, what is missing is trained
    weights = out / "own" / "bag" / "checkpoints" / "40"
    before = weights.stat().st_mtime_ns
    assert "holds a run already" in error(capsys, train(out, *options))
    more = [*options, "--models", "bag", "each", "--resume"]
    assert train(out, *more) == 0 and weights.stat().st_mtime_ns == before
    assert accuracy(out / "own" / "each") == 100
    shutil.rmtree(out / "own" / "each")
    assert train(out, *options, "--shuffled") == 0
    rows = [json.loads(r) for r in (out / "results.jsonl").read_text().splitlines()]
    assert [r["title"] for r in rows] == ["own.tsv, test",
                                          "own.tsv, words shuffled, test"]  # fmt: skip
    assert all(row["scores"]["accuracy"] == 100 for row in rows)


@pytest.mark.long
def test_a_stopped_command_goes_on(tmp_path, capsys):
    """From where it stopped, in the first of its models, to the others."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ["--models", "gru", "bag", "--steps", 5, "--dropout", 0.2]
    with before_step(3, interrupt):
        assert train(cut, *options, "--save-seconds", 0) == 130
    assert not (cut / "first" / "bag").exists() and not (cut / "report.html").exists()
    assert train(cut, *options, "--resume") == 0
    assert "Going on from step 3 of 5." in capsys.readouterr().out
    assert train(whole, *options) == 0
    for model in ("gru", "bag"):
        same_runs(whole / "first" / model, cut / "first" / model)


def test_figure():
    row = lambda data, model, title, accuracy, **more: {
        "settings": {"data": data, "model": model, "pooling": "max", **more},
        "title": f"{title}, test", "scores": {"accuracy": accuracy},
    }  # fmt: skip
    rows = [
        row("first", "gru", "first", 90.0), row("first", "gru", "first", 100.0),
        row("first", "bag", "first", 50.0), row("mr", "gru", "mr", 75.0),
    ]  # fmt: skip
    (axes,) = accuracies(rows).axes
    bars = {(round(p.get_center()[0]), p.get_height()) for p in axes.patches}
    assert bars == {(0, 95.0), (0, 50.0), (1, 75.0)}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["first", "mr"]
    assert axes.lines  # chance
    # another width is a bar of its own, seeds are one
    more = [row("mr", "gru", "mr", 85.0, hidden=9), row("mr", "gru", "mr", 77, seed=1)]
    (axes,) = accuracies([*rows, *more]).axes
    assert sorted(p.get_height() for p in axes.patches) == [50, 76, 85, 95]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["chance", "bag of inputs", "GRU", "GRU, max (hidden 9)"]
    (axes,) = accuracies([*rows, row("/own.tsv", "gru", "own.tsv", 30.0)]).axes
    assert not axes.lines


def test_bad_options(tmp_path, capsys):
    line = error(capsys, train(tmp_path / "out", "--task", tmp_path / "none.tsv"))
    assert "none.tsv: neither a file nor one of first, sentences, sst2, mr" in line
    assert "--models" in refused(capsys, main, "train", "--models", "cnn")
    (tmp_path / "own.tsv").write_text("a\tb\n")
    line = error(capsys, train(tmp_path / "out", "--task", tmp_path / "own.tsv"))
    assert "own.tsv: 1 texts, at least 10" in line
    line = error(capsys, train(tmp_path / "out", "--models", "bag", "--layers", 2))
    assert "--layers: changes nothing with the model bag" in line
    line = error(capsys, train(tmp_path / "out", "--longest", 5))
    assert "--longest 5: first has texts of 12 words" in line
    assert not (tmp_path / "out").exists()
    line = error(capsys, main(["report", "--runs", str(tmp_path)]))
    assert "no finished run there" in line


def test_the_quick_start_of_the_readme(tmp_path):
    """Its code as it stands there: equal numbers in Keras and here."""
    text = (ROOT / "experiments" / "order" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown = "print(theirs.ravel().tolist(), np.asarray(ours).ravel().tolist())"
    code = "\n".join([*blocks, shown])
    # in a process of its own: Keras reads its backend once
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(f"[{done.stdout.replace('] [', '], [')}]")
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert ours == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9], abs=0.05)
