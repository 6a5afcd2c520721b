"""The language model as its user runs it: train, kill, resume, generate, mistakes."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.checkpoint import Checkpoints, make_folder
from experiments.language_model import data
from experiments.language_model.__main__ import main
from experiments.language_model.model import LanguageModel, generate
from experiments.language_model.settings import Settings
from experiments.language_model.train import Trainer, evaluate
from tests.experiments import ROOT, as_users_have_it, error  # noqa: F401

SMALL = "--hidden 16 --embedding 8 --batch 4 --window 16 --length 40".split()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "verse.txt"
    words = "über den wolken muss die freiheit wohl grenzenlos sein".split()
    rng = np.random.default_rng(0)
    path.write_text("\n".join(" ".join(rng.permutation(words)) for _ in range(60)))
    return path


def train(out, *options):
    return main(["train", "--out", str(out), *SMALL, *map(str, options)])


def held_out_nats(printed):
    return float(re.search(r"Held-out text: ([\d.]+) nats", printed)[1])


def test_train_report_and_generate(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(out, "--data", text, "--steps", 60, "--prompt", "die ") == 0
    printed = capsys.readouterr().out
    assert "\ndie " in printed and str(out / "report.html") in printed
    page = (out / "report.html").read_text()
    assert f"{held_out_nats(printed):.4f}" in page
    assert "<b>die </b>" in page and "data:image/png;base64," in page
    assert "://" not in page and "verse.txt" in page and jax.__version__ in page
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    # the checkpoint alone is enough: neither text nor settings
    text.unlink()
    generate = ["generate", "--run", str(out), "--length", "30", "--prompt", "frei"]
    written = []
    for options in ([], [], ["--seed", "1"], ["--temperature", "0"]):
        assert main([*generate, *options]) == 0
        written.append(capsys.readouterr().out)
    assert all(w.startswith("frei") and len(w) == 4 + 30 + 1 for w in written)
    assert written[0] == written[1] != written[2]
    # done already: says so at once, with the same figure
    before = held_out_nats(printed)
    assert train(out, "--resume", "--data", text) == 2
    assert "verse.txt" in capsys.readouterr().err
    text.write_text("x" * 5000)
    line = error(capsys, train(out, "--resume"))
    assert "verse.txt has 1 distinct characters" in line and "vocabulary" in line
    assert before == held_out_nats(printed)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_learns(text, cell):
    """Words in random order: far below the entropy of single characters."""
    settings = Settings(
        data=str(text), cell=cell, layers=2, hidden=32, embedding=16, batch=8,
        window=16, steps=200, dropout=0.1, learning_rate=1e-2,
    )  # fmt: skip
    corpus = data.load(settings.data, settings.held_out)
    trainer = Trainer(settings, corpus)
    counts = np.bincount(corpus.train)
    p = counts[counts > 0] / counts.sum()
    untrained = evaluate(trainer.model, corpus.held_out)
    np.testing.assert_allclose(untrained, np.log(len(corpus.vocabulary)), atol=0.5)
    while trainer.step < settings.steps:
        trainer.advance()
    assert evaluate(trainer.model, corpus.held_out) < 0.5 * -(p * np.log(p)).sum()


def test_evaluate_is_the_mean_over_every_character(text):
    """Against one pass over the whole text, the streams' cold starts apart."""
    corpus = data.load(str(text), 0.3)
    trainer = Trainer(Settings(hidden=8, embedding=4, batch=4, window=16), corpus)
    model = trainer.model
    run = nnx.jit(lambda model, tokens: model(tokens)[1])
    for n in (2, 17, 18, 900):
        tokens = corpus.held_out[:n]
        streams = min(16, n - 1)
        length = -(-(n - 1) // streams)
        total = 0.0
        for start in range(0, n - 1, length):
            piece = tokens[start : start + length + 1]
            logits = np.asarray(run(model, piece[:-1]), np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            total -= log_p[np.arange(len(piece) - 1), piece[1:]].sum()
        np.testing.assert_allclose(evaluate(model, tokens), total / (n - 1), rtol=1e-5)


def test_windows_follow_each_other():
    windows = data.Windows(np.arange(1000), batch=3, window=16, seed=0)
    n = windows.per_epoch
    assert n == 999 // 48
    firsts = set()
    for epoch in range(5):
        before = None
        for i in range(n):
            x, y, fresh = windows.at(epoch * n + i)
            assert fresh == (i == 0)
            np.testing.assert_array_equal(y, x + 1)
            if before is not None:
                np.testing.assert_array_equal(x[:, 0], before[:, -1] + 1)
            before = x
            firsts.add(int(x[0, 0]) if i == 0 else -1)
    assert len(firsts) > 3  # another offset each epoch
    exact = data.Windows(np.arange(3 * 16 + 1), batch=3, window=16, seed=0)
    assert exact.at(0)[1].max() == 48


def test_the_state_is_carried_over_and_no_gradient_with_it(text):
    """The second window's loss is that of one long run at the same weights."""
    corpus = data.load(str(text), 0.1)
    settings = Settings(
        hidden=8, embedding=4, dropout=0.0, batch=4, window=16, learning_rate=0.0
    )
    trainer = Trainer(settings, corpus)
    losses = [float(trainer.advance()) for _ in range(2)]
    (x_1, _, _), (x_2, y_2, _) = (trainer.windows.at(step) for step in range(2))
    _, logits = trainer.model(jnp.asarray(np.concatenate([x_1, x_2], 1)))
    logits = np.asarray(logits[:, 16:], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = -np.take_along_axis(log_p, y_2[..., None], -1).mean()
    np.testing.assert_allclose(losses[1], want, rtol=1e-5)


def test_a_data_set_by_its_name(tmp_path):
    (tmp_path / "input.txt").write_bytes(b"one\r\ntwo\n")
    text = data.load("tinyshakespeare", 0.5, tmp_path)
    assert text.name == "tinyshakespeare" and text.vocabulary == "\nenotw"


def test_runs_that_begin_at_once_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(make_folder, [tmp_path / "runs"] * 2000)]
    assert [*(tmp_path / "runs").iterdir()] == []


def test_generate_goes_on_from_the_prompt():
    """At temperature 0 the likeliest of each step; in between, what top_p leaves."""
    options = {"cell": "lstm", "layers": 2, "hidden": 8, "embedding": 4, "dropout": 0.5}
    model = LanguageModel(5, **options, rngs=nnx.Rngs(0))
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


def test_bad_folder_and_prompt(text, tmp_path, capsys):
    line = error(capsys, train(text / "sub", "--data", text))
    assert "--out" in line and "Not a directory" in line
    line = error(capsys, train(tmp_path / "a", "--data", text, "--prompt", "Ж?"))
    assert "--prompt" in line and "'Ж'" in line
    assert not (tmp_path / "a").exists()
    line = error(capsys, main(["generate", "--run", str(tmp_path / "none")]))
    assert "no checkpoint" in line and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "option, value",
    [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "0"),
     ("--top-p", "1.1"), ("--length", "0"), ("--steps", "2.5"), ("--hidden", "-3"),
     ("--held-out", "0"), ("--cell", "qrnn"), ("--seed", "-1"), ("--dropout", "1")],
)  # fmt: skip
def test_bad_numbers(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        train(tmp_path / "run", option, value)
    assert option in error(capsys, e.value.code)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_and_fits_its_checkpoint(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(out, "--data", text, "--steps", 5) == 0
    report = (out / "report.html").read_bytes()
    assert "--resume" in error(capsys, train(out, "--data", text, "--steps", 5))
    for option, value in [("--hidden", 32), ("--cell", "gru"), ("--layers", 2)]:
        line = error(capsys, train(out, "--resume", option, value))
        assert line.startswith(f"language_model: error: {option} {value}: ")
    assert (out / "report.html").read_bytes() == report
    assert "--steps 4" in error(capsys, train(out, "--resume", "--steps", 4))
    assert train(out, "--resume", "--steps", 8) == 0  # on to more steps
    assert "Going on from step 5 of 8." in capsys.readouterr().out


def test_a_finished_run_is_shown_again_as_it_was(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(out, "--data", text, "--steps", 5, "--seed", 3) == 0
    first = capsys.readouterr().out
    facts = Checkpoints(out, read_only=True).facts()
    assert train(out, "--resume", "--learning-rate", 0.5) == 0
    again = capsys.readouterr().out
    assert first.split("\n\n", 1)[1] == again.split("\n\n", 1)[1]
    assert Checkpoints(out, read_only=True).facts() == facts
    assert "<td class=n>0.5</td>" not in (out / "report.html").read_text()


def test_generate_writes_nothing(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(out, "--data", text, "--steps", 5) == 0
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(["generate", "--run", str(out), "--length", "5"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == files


def test_a_loss_that_is_not_finite_is_never_saved(text, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--data", text, "--steps", 50, "--save-seconds", 0]
    line = error(capsys, train(out, *options, "--learning-rate", "1e30"))
    assert "--learning-rate" in line
    checkpoints = Checkpoints(out)
    facts = checkpoints.facts()
    rows = [row["nats"] for row in facts["train"]] + facts["pending"]
    assert np.isfinite(rows).all() and facts["step"] < 50


def test_a_damaged_checkpoint_is_one_line(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(out, "--data", text, "--steps", 5) == 0
    for path in (out / "checkpoints" / "5").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert "cannot be read" in error(capsys, main(["generate", "--run", str(out)]))
    assert "cannot be read" in error(capsys, train(out, "--resume"))


def command(out, *options):
    line = [sys.executable, "-m", "experiments.language_model", "train", "--out", out]
    return [str(word) for word in [*line, *SMALL, *options]]


def start(out, *options):
    return subprocess.Popen(
        command(out, *options), cwd=ROOT, stdout=-1, stderr=-1, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def wait_for_checkpoint(out, process, beyond=0):
    """Waits until a checkpoint past step `beyond` is complete."""
    for _ in range(600):
        steps = [
            int(p.name) for p in (out / "checkpoints").glob("*") if p.name.isdigit()
        ]
        if steps and max(steps) > beyond:
            return max(steps)
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_as_the_whole_one(text, tmp_path):
    options = ["--data", text, "--steps", 900, "--dropout", 0.2, "--save-seconds", 0.5]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = subprocess.run(
        command(whole, *options), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    process = start(cut, *options)
    step = wait_for_checkpoint(cut, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(cut, "--resume", *options)
    wait_for_checkpoint(cut, process, beyond=step)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Going on from step" in out
    assert "--resume" in err and "Traceback" not in err
    last = subprocess.run(
        command(cut, "--resume", *options), cwd=ROOT, capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    assert held_out_nats(last.stdout) == held_out_nats(done.stdout)
    histories = [Checkpoints(out, read_only=True).facts() for out in (whole, cut)]
    for series in ("train", "held_out"):
        assert histories[0][series] == histories[1][series]
    samples = [printed.split("\n\n")[1] for printed in (last.stdout, done.stdout)]
    assert samples[0] == samples[1]


@pytest.mark.slow
def test_default_text_trains_without_network(tmp_path):
    """The demonstration in short: Python's documentation, the default model."""
    line = [sys.executable, "-m", "experiments.language_model", "train"]
    optimised = {name: v for name, v in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "run"), "--steps", "100"],
        cwd=ROOT, env=optimised, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pydoc_data.topics" in done.stdout
    assert held_out_nats(done.stdout) < 2.8  # single characters: about 3.1
