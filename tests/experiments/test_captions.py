"""Captions as their user makes them: train, stop, resume, caption, mistakes."""

import json
import re
import unicodedata
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.captions import data, experiment, model, names, page
from experiments.captions.__main__ import main
from experiments.captions.names import END, LANGUAGES, LONGEST, START, TABLE
from experiments.captions.settings import ENCODERS, Settings
from experiments.frame import fonts
from experiments.frame.trainer import Trainer
from tests.experiments.helpers import error, refused, resumes

SMALL = "--hidden 8 --embedding 4 --batch 10 --beam 2 --steps 5".split()


@pytest.fixture(scope="module", params=ENCODERS)
def whole(request, tmp_path_factory):
    """A short run with each encoder, and its options."""
    out = tmp_path_factory.mktemp("captions") / request.param
    options = [*SMALL, "--encoder", request.param]
    assert main(["train", "--out", str(out), *options]) == 0
    return out, options


def test_names():
    """Against what stands in no table here: letters come back, all names differ."""
    assert len(LANGUAGES) == 10 and {len(own) for own in TABLE} == {10}
    for language, own in enumerate(TABLE):
        assert len(set(own)) == 10
        for digit, name in enumerate(own):
            tokens = names.tokens(language, digit)
            assert names.text(tokens) == name
            assert tokens[-1] == END and END not in tokens[:-1]
            assert len(tokens) <= LONGEST and max(tokens) < START
    korean = names.tokens(LANGUAGES.index("Korean"), 0)
    letters = "".join(names.LETTERS[t - 1] for t in korean[:-1])
    assert letters == "\u110b\u1167\u11bc"  # ieung, yeo, ieung
    assert unicodedata.normalize("NFC", letters) == "영"
    german = [names.LETTERS[t - 1] for t in names.tokens(LANGUAGES.index("German"), 5)]
    assert german[:4] == ["f", "u", "\u0308", "n"] and len(german) == 6
    assert names.text([START, *korean]) == "?영"
    assert names.text(korean[:-1]) == "영"  # one that did not end


def test_images_are_in_one_part():
    parts = data.parts()
    assert [len(part.images) for part in parts] == [1257, 180, 360]
    pixels, digits = load_digits(return_X_y=True)
    ours = np.concatenate([part.images.reshape(-1, 64) for part in parts]) * 16
    labels = np.concatenate([part.digits for part in parts])
    order = lambda x, y: np.array(sorted(np.column_stack([y, x]).tolist()))
    np.testing.assert_array_equal(order(ours, labels), order(pixels, digits))
    assert all(part.images.min() == 0 and part.images.max() == 1 for part in parts)


def test_batches():
    part = data.parts()[1]
    K = len(LANGUAGES)
    made = data.batch(part, [0, 7, 3 * K + 2], 5)
    for row, (i, language) in enumerate([(0, 0), (0, 7), (3, 2)]):
        name = TABLE[language][part.digits[i]]
        np.testing.assert_array_equal(made.images[row], part.images[i])
        assert made.inputs[row, 0] == START + language
        n = made.lengths[row]
        assert n == len(unicodedata.normalize("NFD", name)) + 1
        np.testing.assert_array_equal(made.inputs[row, 1:n], made.targets[row, : n - 1])
        assert names.text(made.targets[row].tolist()) == name
    assert (made.lengths[3:] == 0).all()


def test_scores():
    part = data.Part(np.zeros((2, 8, 8)), np.array([3, 4]))
    right = [[own[d] for own in TABLE] for d in (3, 4)]
    found = experiment.scores(right, right, part)
    assert set(found.values()) == {100.0}
    wrong = [right[0], [own[9] for own in TABLE]]  # another digit, in all languages
    found = experiment.scores(wrong, right, part)
    assert found["all"] == found["Korean"] == 50 and found["all, beam"] == 100
    assert found["agree"] == 100
    mixed = [["three", *right[0][1:]], ["nine", *right[1][1:]]]
    found = experiment.scores(mixed, right, part)
    assert found["agree"] == 50 and found["all"] == 95
    assert found["English"] == 50 and found["German"] == 100


@pytest.mark.every(2)
def test_train_caption_report(whole, tmp_path, capsys):
    out, _ = whole
    text = (out / "report.html").read_text()
    share = re.search(r"test: <b>([\d.]+)%</b> of the names", text)[1]
    assert "Korean" in text and "data:image/png;base64," in text
    result = json.loads((out / "result-test.json").read_text())
    assert f"{result['scores']['all']:.2f}" == share
    run = ["caption", "--run", str(out)]
    assert main([*run, "--images", "5", "0", "--languages", "German", "Korean"]) == 0
    rows = [row.split("\t") for row in capsys.readouterr().out.splitlines()]
    digits = data.parts()[2].digits
    assert [row[:2] for row in rows] == [["5", str(digits[5])], ["0", str(digits[0])]]
    assert {len(row) for row in rows} == {4}
    both = ["report", "--runs", str(out), "--out", str(tmp_path / "both")]
    assert main(both) == 0
    text = (tmp_path / "both" / "report.html").read_text()
    name = {"rows": "an LSTM over rows, 8", "pixels": "a layer of pixels, 8"}[out.name]
    assert name in text and "Finnish" in text
    assert "holds a run" in error(capsys, main([*both[:-1], str(out)]))


@pytest.mark.long
def test_resume(whole, tmp_path):
    out, options = whole
    resumes(main, out, tmp_path / "cut", *options)


def test_letters_of_no_syllable_are_not_drawn(monkeypatch):
    font = SimpleNamespace(get_charmap=lambda: {ord(c): 1 for c in "a\uc0ac\u1109"})
    monkeypatch.setattr(fonts, "FT2Font", lambda file: font)
    assert fonts.drawable(["a \uc0ac"], ["DejaVu Sans"])
    assert not fonts.drawable(["a\u1109"], ["DejaVu Sans"])
    assert not fonts.drawable(["b"], ["DejaVu Sans"])


def test_learns():
    """Most names to the letter, where one of ten would be right by chance."""
    settings = Settings(hidden=64, embedding=24, steps=230, batch=64,
                        learning_rate=2e-2, dropout=0.0, encoder="pixels")  # fmt: skip
    loaded = data.load(settings)
    run = Trainer(settings, model.make(settings, {}), model.loss, loaded)
    np.testing.assert_allclose(run.evaluate(), np.log(names.TOKENS), atol=0.5)
    while run.step < settings.steps:
        run.advance()
    part = data.Part(*(array[:100] for array in loaded.tests["test"]))
    greedy = experiment.captions(run.model, part.images, 1)
    found = experiment.scores(greedy, greedy, part)
    assert found["all"] > 70 and found["agree"] > 70
    # the beam's is as likely as the greedy one, or likelier
    beam = experiment.captions(run.model, part.images, 3)
    both = [log_p(run.model, part.images, said) for said in (greedy, beam)]
    assert (both[1] >= both[0] - 1e-4).all()
    drawn = page.figure(part, greedy, [0, 1, 2])
    assert [axes.texts[0].get_text() for axes in drawn.axes] == [
        row[0] for row in greedy[:3]
    ]


def log_p(model, images, said):
    """Log-probabilities of names, each of one image and language, letter by letter."""
    found = []
    for i, row in enumerate(said):
        for language, name in enumerate(row):
            letters = unicodedata.normalize("NFD", name)
            tokens = [1 + names.LETTERS.index(c) for c in letters] + [END]
            tokens = tokens[:LONGEST]
            inputs = [START + language, *tokens[:-1]]
            more = [0] * (LONGEST - len(tokens))
            found.append((i, inputs + more, tokens + more, len(tokens)))
    rows, inputs, tokens, lengths = map(np.array, zip(*found, strict=True))
    logits = jax.jit(lambda x, t: model(x, t))(images[rows], inputs)
    p = np.asarray(jax.nn.log_softmax(logits))
    picked = np.take_along_axis(p, tokens[..., None], -1)[..., 0]
    inside = np.arange(LONGEST) < lengths[:, None]
    return np.where(inside, picked, 0).sum(1)


def test_mistakes(tmp_path, capsys):
    out = tmp_path / "run"
    run = ["caption", "--run", str(out)]
    assert "no checkpoint" in error(capsys, main(run))
    line = error(capsys, main([*run, "--images", "360"]))
    assert "--images 360: the test has images 0 to 359" in line
    line = error(capsys, main([*run, "--languages", "Latin"]))
    assert "--languages Latin: not one of English, German" in line
    assert "--encoder" in refused(capsys, main, "train", "--encoder", "cnn")
    assert "--images" in refused(capsys, main, "caption", "--images", "-1")
    assert not out.exists()
