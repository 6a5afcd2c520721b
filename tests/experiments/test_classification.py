"""Classification as its user runs it, and its parts against NumPy."""

import gzip
import json
import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from experiments.classification import data, experiment
from experiments.classification.__main__ import main
from experiments.classification.data import Example
from experiments.classification.mnist import idx
from experiments.classification.model import Classifier, mean
from experiments.classification.page import NAMES, label
from experiments.classification.settings import (
    IMAGES,
    MODELS,
    POOLINGS,
    PRESETS,
    Settings,
    preset,
)
from experiments.classification.texts import texts
from experiments.frame import buckets
from experiments.frame.errors import InputError
from experiments.frame.experiment import load
from tests.experiments.helpers import REAL, error, real, refused, resumes

SMALL = "--hidden 8 --batch 16 --steps 2 --dropout 0.2".split()
WORDS = "the a film was of and with plot actor scene".split()


@pytest.fixture
def table(tmp_path):
    """Texts of a dozen words, whose label one of the words decides."""
    path, chance = tmp_path / "texts.tsv", random.Random(0)
    rows = []
    for i in range(300):
        words = chance.choices(WORDS, k=chance.randint(5, 11))
        sign = ("good", "bad")[i % 2]
        words.insert(chance.randrange(len(words)), sign)
        rows.append(f"{' '.join(words)}\t{'pos' if sign == 'good' else 'neg'}")
    path.write_text("\n".join(rows) + "\n")
    return path


def run(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def accuracy(out):
    return json.loads((out / "result-test.json").read_text())["scores"]["accuracy"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A short run over images."""
    out = tmp_path_factory.mktemp("digits") / "run"
    assert run(out, "--steps", 5) == 0
    return out


def test_train_classify_report(table, tmp_path, capsys):
    out = tmp_path / "runs/0"
    options = ["--data", table, "--steps", 150, "--learning-rate", 0.02]
    assert run(out, *options, "--model", "gru", "--pooling", "attention") == 0
    assert accuracy(out) > 90
    printed = capsys.readouterr().out
    assert f"accuracy {accuracy(out):.2f}%" in printed
    page = (out / "report.html").read_text()
    assert f"<b>{accuracy(out):.2f}%</b>" in page and "What got attention" in page
    assert page.count("data:image/png;base64,") == 2 and "://" not in page
    lines = tmp_path / "lines.txt"
    lines.write_text("the film was good\nthe film was bad\nstrange words\n\n")
    classify = ["classify", "--run", str(out), "--input", str(lines)]
    assert main(classify) == 0
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[:2]] == ["pos", "neg"] and len(rows) == 4
    assert all(0.5 <= float(row[1]) <= 1 for row in rows)
    assert rows[0][2] == "the film was good"
    both = tmp_path / "both"
    assert main(["report", "--runs", str(out.parent), "--out", str(both)]) == 0
    printed = capsys.readouterr().out
    assert f"| GRU, attention | 1 | {accuracy(out):.1f} |" in printed


@pytest.mark.every(2)
@pytest.mark.parametrize("model", MODELS)
def test_two_steps_of_each_model_on_images(model, tmp_path):
    assert run(tmp_path / "run", "--model", model) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # with the misread ones


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("model", "pooling"), [("bilstm", "last"), ("rnn", "mean"), ("rnn", "max")]
)
def test_two_steps_of_each_pooling_on_text(model, pooling, table, tmp_path):
    """What was tested is the model that was saved."""
    out = tmp_path / "run"
    options = ["--data", table, "--model", model, "--pooling", pooling]
    assert run(out, *options, "--word-dropout", 0.1) == 0
    page = (out / "report.html").read_text()
    assert f"<h1>{NAMES[model]}, {pooling}: texts.tsv</h1>" in page
    assert page.count("data:image/png;base64,") == 2 and "Wrong, and sure" in page
    saved = load(experiment.EXPERIMENT, out)
    assert saved.settings.word_dropout == 0.1 and saved.model.pooling == pooling
    test = data.load(saved.settings, None).tests["test"]
    p = experiment.probabilities(saved.model, test, 7)
    assert accuracy(out) == pytest.approx(experiment.scores(p, test)["accuracy"])


def test_reads_digits_row_by_row(tmp_path):
    out = tmp_path / "run"
    assert run(out, "--hidden", 24, "--steps", 150, "--learning-rate", 0.02) == 0
    assert accuracy(out) > 75  # chance is 10


def test_a_stopped_run_ends_as_the_whole_one(digits, tmp_path):
    resumes(main, digits, tmp_path / "cut", *SMALL, "--steps", 5)


def test_mistakes_are_told_in_one_line(table, digits, tmp_path, capsys):
    out = tmp_path / "run"
    told = lambda *options: error(capsys, run(out, *options))
    rows = table.read_text().splitlines()
    table.write_text("\n".join([*rows[:3], "no label", *rows[4:]]))
    assert "texts.tsv, line 4: 1 columns, 2 expected" in told("--data", table)
    table.write_text("\n".join([*rows[:3], " \tpos", *rows[4:]]))
    assert "texts.tsv, line 4: an empty text or label" in told("--data", table)
    table.write_text("\n".join(rows[:9]))
    assert "9 texts, at least 10 needed" in told("--data", table)
    table.write_text("\n".join(row for row in rows if row.endswith("pos")))
    assert "all texts have the label ['pos']" in told("--data", table)
    assert "neither a file nor one of digits" in told("--data", "none.tsv")
    for option in (["--shuffled"], ["--units", "words"], ["--data-dir", tmp_path]):
        assert f"{option[0]}: changes nothing with the data digits" in told(*option)
    line = told("--model", "bag", "--pooling", "max")
    assert "--pooling: changes nothing with the model bag" in line
    empty = tmp_path / "empty"
    empty.mkdir()
    options = "--data", "mnist", "--data-dir", empty
    assert "no train-images-idx3-ubyte of mnist there" in told(*options)
    assert not out.exists()
    assert "no checkpoint there" in error(capsys, main(["classify", "--run", str(out)]))
    line = refused(capsys, main, "train", "--model", "transformer")
    assert "--model" in line and "bilstm" in line
    line = error(capsys, main(["classify", "--run", str(digits)]))
    assert "classifies images" in line


def test_a_run_goes_on_with_its_own_data_alone(table, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(out, "--data", table) == 0
    capsys.readouterr()
    table.write_text(table.read_text().replace("film", "movie"))
    line = error(capsys, run(out, "--resume", "--steps", 3))
    assert "the checkpoint there was trained on other data" in line


def classifier(**options):
    settings = Settings(hidden=5, embedding=4, **options)
    return Classifier(settings, 3, vocabulary=20, rngs=nnx.Rngs(0))


KINDS = [(model, "mean") for model in MODELS] + [("bilstm", name) for name in POOLINGS]


@pytest.mark.parametrize(("model", "pooling"), KINDS)
def test_padding_changes_nothing(model, pooling):
    module = classifier(model=model, pooling=pooling)
    module.eval()
    run = nnx.jit(lambda x, lengths: module(x, lengths))
    x = np.random.default_rng(0).integers(1, 20, (2, 9))
    lengths = np.array([9, 4], np.int32)
    want = run(x, lengths)
    for fill in (0, 7):
        padded = np.pad(x, ((0, 1), (0, 3)), constant_values=fill)
        padded[1, 4:] = fill
        got = run(padded, np.array([9, 4, 0], np.int32))
        np.testing.assert_allclose(got[:2], want, rtol=1e-5, atol=1e-6)
        assert np.isfinite(got).all()  # of the row that only fills the batch too


def test_pooling():
    y = np.random.default_rng(0).standard_normal((2, 6, 10)).astype(np.float32)
    valid = np.arange(6) < np.array([[6], [2]])
    np.testing.assert_allclose(mean(y, valid)[1], y[1, :2].mean(0), rtol=1e-5)
    pool = lambda name: classifier(model="bilstm", pooling=name).pool(None, y, valid)
    np.testing.assert_allclose(pool("mean")[0], y[0].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pool("max")[1], y[1, :2].max(0))
    module = classifier(model="bilstm", pooling="attention")
    scores = np.tanh(y @ module.attend.kernel + module.attend.bias.get_value())
    scores = np.exp(scores @ module.query.kernel)[..., 0] * valid
    weights = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(module.attention(y, valid), weights, rtol=1e-5)
    np.testing.assert_allclose(
        module.pool(None, y, valid)[1], weights[1, :2] @ y[1, :2], rtol=1e-4
    )
    # the last state of each direction, where each has read all
    module = classifier(model="bilstm", pooling="last")
    x, lengths = np.ones((2, 6), int), np.array([6, 2], np.int32)
    state, out = module.recurrent(module.embed(x), lengths=lengths)
    got = module.pool(state, out, valid)
    ends = np.concatenate([out[1, 1, :5], out[1, 0, 5:]])
    np.testing.assert_allclose(got[1], ends, rtol=1e-6)


def test_the_bag_and_each_see_no_order():
    x = np.random.default_rng(0).integers(1, 20, (3, 9))
    lengths = np.full(3, 9, np.int32)
    moved = x[:, np.random.default_rng(1).permutation(9)]
    for name in MODELS:
        module = classifier(model=name)
        module.eval()
        same = np.allclose(module(x, lengths), module(moved, lengths), atol=1e-5)
        assert same == (name in ("each", "bag"))


def test_tokens_and_vocabulary():
    settings = Settings(least=2, longest=4)
    known = data.make_vocabulary(["B a a", "b c a"], settings)
    assert known == ["a", "b"]
    index = {"a": 2, "b": 3}
    assert data.encode("A b c a b", index, settings) == [2, 3, 1, 2]
    assert data.encode("  ", index, settings) == [1]
    letters = replace(settings, units="characters")
    assert data.tokens("Ab  c\t", letters) == ["a", "b", " ", "c"]


def test_batches_hold_every_example_once():
    chance = random.Random(0)
    rows = [[chance.randrange(2, 9)] * chance.randrange(1, 60) for _ in range(77)]
    examples = [Example(row, i % 3, "") for i, row in enumerate(rows)]
    seen = []
    for batch, places in buckets.once(data.bucketed(examples, 8)):
        assert batch.x.shape[0] == 8 and not batch.lengths[len(places) :].any()
        for row, place in enumerate(places):
            n = batch.lengths[row]
            assert batch.x[row, :n].tolist() == rows[place]
            assert not batch.x[row, n:].any() and batch.labels[row] == place % 3
        seen += places
    assert sorted(seen) == list(range(77))


def test_scores():
    p = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    examples = [Example([1], y, "") for y in (0, 0, 1, 2, 2, 0)]
    found = experiment.scores(p, examples)
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    f1 = [2 * 2 / (2 + 3), 2 * 1 / (2 + 1), 2 * 1 / (2 + 2)]
    assert found["macro F1"] == pytest.approx(100 * np.mean(f1))


def test_images():
    made = [data.load(Settings(data=name), None) for name in IMAGES[:3]]
    assert "1,257 to train on, 180 held out, 360 to test, 10 labels" in made[0].about
    rows, pixels, permuted = (
        np.stack([example.x for example in each.tests["test"]]) for each in made
    )
    assert rows.shape == (360, 8, 8) and 0 <= rows.min() < rows.max() <= 1
    np.testing.assert_array_equal(pixels, rows.reshape(360, 64, 1))
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(permuted, pixels[:, order])
    batches = [each.train[5] for each in made]  # the same images
    np.testing.assert_array_equal(batches[1].x, batches[0].x.reshape(50, 64, 1))
    np.testing.assert_array_equal(batches[2].x, batches[1].x[:, order])
    held_out = np.concatenate([batch.lengths for batch in made[0].held_out])
    assert sorted(held_out, reverse=True) == [8] * 180 + [0] * 20


def test_idx_files(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + images.tobytes()
    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        np.testing.assert_array_equal(idx(path), images)
    for wrong in (b"", content[:-1], b"\x01" + content, b"no idx file at all"):
        plain.write_bytes(wrong)
        with pytest.raises(InputError, match="not an IDX file of bytes"):
            idx(plain)
    packed.write_bytes(content)
    with pytest.raises(InputError, match="not an IDX file of bytes"):
        idx(packed)


def test_shuffled_texts_keep_their_words():
    text = "one two three four five six"
    mixed = [data.mixed(text, seed) for seed in range(9)]
    assert all(sorted(m.split()) == sorted(text.split()) for m in mixed)
    assert len({*mixed}) > 5 and data.mixed(text, 3) == mixed[3]


@real
def test_real_texts():
    sizes = {
        "mr": (8530, 1066, 1066, 2),
        "sst2": (6920, 872, 1821, 2),
        "sst5": (8544, 1101, 2210, 5),
        "trec": (4952, 500, 500, 6),
    }
    for name, want in sizes.items():
        parts = texts(preset({"data": name}), REAL)
        labels = {label for part in parts for _, label in part}
        assert (*map(len, parts), len(labels)) == want
        if name == "mr":  # drawn here, so that no text is in two parts
            own = [{text for text, _ in part} for part in parts]
            assert not own[0] & own[2] and not own[0] & own[1]
    questions = data.load(preset({"data": "trec"}), REAL)
    labels = questions.facts["labels"]
    named = {e.text: labels[e.label] for e in questions.tests["test"]}
    assert named["How far is it from Denver to Aspen ?"] == "number"
    assert named["Who was Galileo ?"] == "person"


@real
def test_real_images():
    found = data.load(Settings(data="mnist_permuted"), REAL)
    assert "55,000 to train on, 5,000 held out, 10,000 to test" in found.about
    first = found.tests["test"][0]
    assert first.x.shape == (784, 1) and first.label == 7


def test_labels():
    assert label({"model": "bag", "pooling": "last"}) == "bag of inputs"
    assert label({"model": "bilstm", "pooling": "max"}) == "BiLSTM, max"


def test_too_few_different_texts_are_told(tmp_path, capsys):
    path = tmp_path / "same.tsv"
    path.write_text("good film\tpos\nbad film\tneg\n" * 6)
    line = error(capsys, run(tmp_path / "run", "--data", path))
    assert "2 different rows among 12: too few to train" in line


def test_presets_are_settings():
    for name in PRESETS:
        assert preset({"data": name}).data == name
