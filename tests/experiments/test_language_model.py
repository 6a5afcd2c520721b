"""The language model as its user runs it: train, resume, generate, mistakes."""

import io
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.frame.experiment import load
from experiments.frame.trainer import Trainer
from experiments.language_model import data
from experiments.language_model.__main__ import main
from experiments.language_model.experiment import EXPERIMENT
from experiments.language_model.model import LanguageModel, generate
from experiments.language_model.settings import CELLS, Settings
from tests import reference_cells
from tests.experiments.helpers import error, refused, resumes

SMALL = "--hidden 16 --embedding 8 --batch 4 --window 16 --length 40".split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    words = "über den wolken muss die freiheit wohl grenzenlos sein".split()
    rng = np.random.default_rng(0)
    path.write_text("\n".join(" ".join(rng.permutation(words)) for _ in range(60)))
    return path


@pytest.fixture(scope="module")
def options(text):
    return ["--data", str(text), "--steps", "5", "--prompt", "die ", *SMALL]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """A short run, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["train", "--out", str(out), *options]) == 0
    return out, printed.getvalue()


def train(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def held_out_nats(printed):
    return float(re.search(r"Held-out text: ([\d.]+) nats", printed)[1])


def test_train_and_report(whole, tmp_path, capsys):
    out, printed = whole
    assert "\n\ndie " in printed and str(out / "report.html") in printed
    page = (out / "report.html").read_text()
    assert f"<b>{held_out_nats(printed):.4f}</b> nats" in page
    assert "<b>die </b>" in page and "data:image/png;base64," in page
    assert "Character LSTM on verse.txt" in page and jax.__version__ in page
    assert "://" not in page
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "--runs", str(out), "--out", str(tmp_path)]) == 0
    line = f"| LSTM 16 | 1 | {held_out_nats(printed):.3f} |"
    assert line in capsys.readouterr().out


def test_generate_needs_the_checkpoint_alone(whole, text, tmp_path, capsys):
    generate = ["generate", "--run", str(whole[0]), "--length", "30"]
    generate += ["--prompt", "frei"]
    away, written = text.rename(tmp_path / "away"), []
    try:
        for options in ([], [], ["--seed", "1"], ["--temperature", "0"]):
            assert main([*generate, *options]) == 0
            written.append(capsys.readouterr().out)
    finally:
        away.rename(text)
    assert all(w.startswith("frei") and len(w) == 4 + 30 + 1 for w in written)
    assert written[0] == written[1] != written[2]


def test_a_finished_run_is_shown_again_with_the_same_figure(
    whole, options, tmp_path, capsys
):
    out = shutil.copytree(whole[0], tmp_path / "again")
    (out / "report.html").unlink()
    assert main(["train", "--out", str(out), "--resume", *options]) == 0
    told = lambda printed: printed.split("\n\n", 1)[1].rsplit("Report: ")[0]
    printed = capsys.readouterr().out
    assert told(printed) == told(whole[1])  # the sample and the figures
    assert f"<b>{held_out_nats(printed):.4f}</b>" in (out / "report.html").read_text()
    # of its own text alone
    more = ["--resume", "--steps", 6, "--data"]
    line = error(capsys, train(out, *more, tmp_path / "none.txt"))
    assert "none.txt: No such file" in line
    other = tmp_path / "other.txt"
    other.write_text("x" * 5000)
    line = error(capsys, train(out, *more, other))
    assert "the checkpoint there was trained on other data" in line


def test_a_stopped_run_ends_as_the_whole_one(whole, options, tmp_path):
    resumes(main, whole[0], tmp_path / "cut", *options)


def trainer(settings, part=slice(None)):
    """Of a part of what is held out."""
    loaded = data.load(settings, None)
    tokens = loaded.tests["test"][part]
    loaded = loaded._replace(held_out=data.every_window(tokens))
    model = EXPERIMENT.model.make(settings, loaded.facts)
    return Trainer(settings, model, EXPERIMENT.model.loss, loaded, EXPERIMENT.start)


# of examples/cells: as it is called on the page, in NumPy, and parts of its state
PUBLISHED = {
    "mgu": ("MGU", reference_cells.mgu, 1),
    "layer-norm-lstm": ("layer-norm LSTM", reference_cells.layer_norm_lstm, 2),
    "multiplicative-lstm": (
        "multiplicative LSTM", reference_cells.multiplicative_lstm, 2,
    ),
}  # fmt: skip


@pytest.mark.every(3)
@pytest.mark.parametrize("cell", PUBLISHED)
def test_a_published_cell(cell, options, tmp_path, capsys):
    """It trains, goes on, is loaded, writes, and has the equations of its paper."""
    title, step, parts = PUBLISHED[cell]
    out = tmp_path / "run"
    options = [*options, "--cell", cell, "--layers", "2", "--out", str(out)]
    assert main(["train", *options]) == 0
    assert main(["train", *options, "--resume", "--steps", "6"]) == 0
    assert "Going on from step 5 of 6" in capsys.readouterr().out
    assert f"Character {title} on verse.txt" in (out / "report.html").read_text()
    assert main(["generate", "--run", str(out), "--length", "9"]) == 0
    assert len(capsys.readouterr().out) == 10

    recurrent = load(EXPERIMENT, out).model.recurrent
    x = jax.random.normal(jax.random.key(0), (7, 8))
    y = np.asarray(x, np.float64)
    for params in recurrent.params:
        params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
        zeros = np.zeros(16) if parts == 1 else (np.zeros(16),) * parts
        _, y = reference_cells.over_time(step)(params, zeros, y)
    np.testing.assert_allclose(recurrent(x)[1], y, atol=1e-5)


@pytest.mark.every(2)
@pytest.mark.parametrize("cell", CELLS)
def test_learns(text, cell):
    """Words in random order: far below the entropy of single characters."""
    settings = Settings(
        data=str(text), cell=cell, layers=2, hidden=32, embedding=16, batch=8,
        window=16, steps=200, dropout=0.1, learning_rate=1e-2,
    )  # fmt: skip
    run = trainer(settings)
    counts = np.bincount(run.data.train.tokens)
    p = counts[counts > 0] / counts.sum()
    untrained = np.log(len(run.data.facts["vocabulary"]))
    np.testing.assert_allclose(run.evaluate(), untrained, atol=0.5)
    while run.step < settings.steps:
        run.advance()
    assert run.evaluate() < 0.5 * -(p * np.log(p)).sum()


SMALLEST = Settings(
    hidden=8, embedding=4, dropout=0.0, batch=4, window=16, learning_rate=0.0
)


def test_what_is_held_out_is_the_mean_over_every_character(text):
    """Against one pass over the whole text, the streams' cold starts apart."""
    settings = replace(SMALLEST, data=str(text), held_out=0.9, batch=2, window=8)
    run = nnx.jit(lambda model, tokens: model(tokens)[1])
    for n in (2, 17, 18, 2900):
        one = trainer(settings, np.s_[:n])
        tokens = one.data.tests["test"][:n]
        streams = min(16, n - 1)
        length = -(-(n - 1) // streams)
        if length > 128:  # whole windows
            length = -(-length // 128) * 128
        pieces = np.zeros((streams, length + 1), np.int32)
        there = np.zeros((streams, length))
        for i in range(streams):
            piece = tokens[i * length : (i + 1) * length + 1]
            pieces[i, : len(piece)] = piece
            there[i, : max(0, len(piece) - 1)] = 1
        assert there.sum() == n - 1
        logits = np.asarray(run(one.model, pieces[:, :-1]), np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        log_p = np.take_along_axis(log_p, pieces[:, 1:, None], -1)[..., 0]
        want = -(log_p * there).sum() / (n - 1)
        np.testing.assert_allclose(one.evaluate(), want, rtol=1e-5)
    assert len(one.data.held_out) > 1  # of the longest, several windows


def test_windows_follow_each_other():
    windows = data.Windows(np.arange(1000), batch=3, window=16, seed=0)
    n = windows.per_epoch
    assert n == 999 // 48
    firsts = set()
    for epoch in range(5):
        before = None
        for i in range(n):
            x, y, fresh, _ = windows[epoch * n + i]
            assert fresh == (i == 0)
            np.testing.assert_array_equal(y, x + 1)
            if before is not None:
                np.testing.assert_array_equal(x[:, 0], before[:, -1] + 1)
            before = x
            firsts.add(int(x[0, 0]) if i == 0 else -1)
    assert len(firsts) > 3  # another offset each epoch
    exact = data.Windows(np.arange(3 * 16 + 1), batch=3, window=16, seed=0)
    assert exact[0].targets.max() == 48


def test_the_state_is_carried_over_until_the_streams_begin_anew(text):
    """Losses are those of one long run at the same weights, in each epoch."""
    run = trainer(replace(SMALLEST, data=str(text), held_out=0.1, batch=80))
    epoch = run.data.train.per_epoch
    assert epoch == 2
    losses = [float(run.advance()) for _ in range(2 * epoch)]
    read = nnx.jit(lambda model, tokens: model(tokens)[1])
    for first in (0, epoch):
        batches = [run.data.train[first + i] for i in range(epoch)]
        x, y = (np.concatenate([b[k] for b in batches], 1) for k in range(2))
        logits = np.asarray(read(run.model, jnp.asarray(x)), np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
        want = nats.reshape(80, epoch, 16).mean((0, 2))
        np.testing.assert_allclose(losses[first : first + epoch], want, rtol=1e-5)


def test_a_data_set_by_its_name(tmp_path):
    (tmp_path / "input.txt").write_bytes(b"one\r\ntwo\n")
    settings = replace(SMALLEST, data="tinyshakespeare", held_out=0.5, batch=1)
    loaded = data.load(replace(settings, window=2), tmp_path)
    assert loaded.about.startswith("tinyshakespeare: 4 characters to train on, 4 held")
    assert loaded.facts["vocabulary"] == "\nenotw"


def test_generate_goes_on_from_the_prompt():
    """At temperature 0 the likeliest of each step; in between, what top_p leaves."""
    settings = replace(SMALLEST, layers=2, dropout=0.5)
    model = LanguageModel(settings, 5, nnx.Rngs(0))
    model.eval()
    weights = jax.tree.map(lambda w: 4 * w, nnx.state(model, nnx.Param))
    nnx.update(model, weights)  # so that the likeliest token changes
    read = nnx.jit(lambda model, tokens: model(tokens)[1][0])
    for prompt in ([3], [0, 4, 1, 2]):
        args = model, np.array(prompt), jax.random.key(0)
        whole = np.zeros(16, np.int32)  # of which what comes later is not read
        whole[: len(prompt)] = prompt
        for t in range(len(prompt), 16):
            whole[t] = read(model, whole[None])[t - 1].argmax()
        want = whole[len(prompt) :].tolist()
        assert len(set(want)) > 1
        for how in ((0.0, 0.9), (1.0, 1e-6)):
            assert generate(*args, *how, length=len(want)).tolist() == want
        drawn = generate(*args, 1.0, 1.0, length=len(want))
        assert drawn.tolist() != want


def test_bad_data(tmp_path, capsys):
    out = tmp_path / "run"
    (tmp_path / "empty").touch()
    (tmp_path / "latin1").write_bytes("Grüße ".encode("latin-1") * 100)
    (tmp_path / "short").write_text("too short")
    for name, what in {
        "missing": "No such file",
        "empty": "empty",
        "latin1": "not utf-8",
        "short": "at least 65 needed",
        ".": "Is a directory",
    }.items():
        line = error(capsys, train(out, "--data", tmp_path / name))
        assert what in line and name.strip(".") in line
    assert not out.exists()


def test_a_prompt_of_other_characters(text, whole, tmp_path, capsys):
    line = error(capsys, train(tmp_path / "a", "--data", text, "--prompt", "Ж?"))
    assert "--prompt: '?', 'Ж' not among the 21 characters" in line
    assert not (tmp_path / "a").exists()
    command = ["generate", "--run", str(whole[0]), "--prompt", "Ж"]
    assert "--prompt: 'Ж'" in error(capsys, main(command))
    line = error(capsys, main(["generate", "--run", str(tmp_path / "none")]))
    assert "no checkpoint" in line and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "0"),
     ("--top-p", "1.1"), ("--length", "0"), ("--held-out", "0"), ("--cell", "qrnn")],
)  # fmt: skip
def test_bad_numbers(option, value, capsys):
    assert option in refused(capsys, main, "train", option, value)


def test_default_text_trains_without_network(tmp_path, capsys):
    """The demonstration with a small model: Python's documentation."""
    small = "--hidden 64 --batch 16 --steps 120 --learning-rate 1e-2 --held-out 0.02"
    assert main(["train", "--out", str(tmp_path / "run"), *small.split()]) == 0
    printed = capsys.readouterr().out
    assert "pydoc_data.topics" in printed
    assert held_out_nats(printed) < 2.8  # single characters: about 3.1
