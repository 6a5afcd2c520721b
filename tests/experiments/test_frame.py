"""The frame of the experiments, tested with a small one: tests/experiments/toy.py."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest
from flax import nnx
from matplotlib.figure import Figure

from experiments.frame import checkpoint, distributed, page, results
from experiments.frame.checkpoint import Checkpoints
from experiments.frame.experiment import load
from experiments.frame.files import make_folder
from experiments.frame.options import fixed
from experiments.frame.trainer import Trainer, make_optimizer
from tests.experiments.helpers import (
    ROOT,
    before_step,
    error,
    refused,
    same_runs,
)
from tests.experiments.toy import EXPERIMENT, Settings, main

FULL = page.DPI


def train(out, *options):
    return main(["train", "--out", str(out), *map(str, options)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("frame") / "whole"
    assert train(out, "--note", "of its own") == 0
    return out


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(whole, tmp_path / "finished")


# from the first step to the page


def test_what_a_run_tells(whole, tmp_path, capsys):
    assert train(tmp_path / "run", "--steps", 2, "--resume") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "even numbers" and "starting at the beginning" in printed[1]
    assert "Squared error 0." in printed[2] and "<here>" in printed[2]
    assert printed[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    body = (whole / "report.html").read_text()
    found = json.loads((whole / "result-test.json").read_text())
    assert (
        f"Squared error <b>{found['scores']['squared error']:.4f}</b>, &lt;here&gt;"
        in body
    )
    assert "<h1>A &lt;toy&gt;</h1>" in body and "data:image/png;base64," in body
    assert "3,216 numbers seen in 402 steps" in body and "19 weights" in body
    shown = {"dropout": 0.5, "note": "of its own", "jax": jax.__version__}
    for name, value in shown.items():
        assert f"<tr><th>{name}</th><td class=n>{value}</td></tr>" in body
    assert "://" not in body
    assert found["sentences"] == ["said"] and found["step"] == 402


def test_figures_are_drawn_at_full_size(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DPI", FULL)
    element = page.save_figure(Figure(figsize=(3, 2)), tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png").shape[:2] == (320, 480)
    assert 'alt="a" width="288"' in element


def test_a_model_is_loaded_as_it_was_trained(whole):
    run = load(EXPERIMENT, whole)
    assert run.settings == Settings() and run.facts["width"] == 1
    x = EXPERIMENT.data.load(run.settings, None).tests["test"]
    found = json.loads((whole / "result-test.json").read_text())["scores"]
    got = float(np.square(run.model(x.x)[1] - x.y).mean())
    assert got == pytest.approx(found["squared error"], rel=1e-5)


# what is trained


def trainer(**options):
    settings = replace(Settings(steps=30), **options)
    data = EXPERIMENT.data.load(settings, None)
    model = EXPERIMENT.model.make(settings, data.facts)
    return Trainer(settings, model, EXPERIMENT.model.loss, data, EXPERIMENT.start)


def test_the_update_is_that_of_the_equations():
    """Three steps by hand: gradients of the mean, none through the carry, and AdamW."""
    run = trainer(dropout=0.0)
    settings, optimizer = run.settings, make_optimizer(run.settings)
    model = EXPERIMENT.model.make(settings, {})
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    state = optimizer.init(weights)
    carry = (jnp.zeros((2, 3)),)

    def mean(weights, carry, batch):
        carry, y = nnx.merge(graph, weights, rest)(batch.x, carry)
        return jnp.square(y - batch.y).mean(), carry

    @jax.jit
    def update(weights, state, carry, batch):
        grad = jax.value_and_grad(mean, has_aux=True)
        (value, carry), grads = grad(weights, carry, batch)
        updates, state = optimizer.update(grads, state, weights)
        return value, optax.apply_updates(weights, updates), state, carry

    for step in range(3):
        batch = run.data.train[step]
        value, weights, state, carry = update(weights, state, carry, batch)
        np.testing.assert_allclose(run.advance(), value / 2, rtol=1e-5)
    np.testing.assert_allclose(run.carry[0], carry[0], rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (run.state.weights, weights)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_held_out_is_one_sequence_without_dropout():
    run = trainer()
    batches = run.data.held_out
    x, y = (np.concatenate(parts, 1) for parts in zip(*batches, strict=True))
    _, answers = run.model(x)
    want = np.square(answers - y).mean() / 2
    np.testing.assert_allclose(run.evaluate(), want, rtol=1e-5)


def test_a_loss_may_be_no_more_than_a_total_and_a_number():
    """What is not carried does not come back, and the total is what is shown."""

    def loss(model, batch):
        total, n, _, _ = EXPERIMENT.model.loss(model, batch, None)
        return total, n

    settings = Settings(steps=30, dropout=0.0)
    data = EXPERIMENT.data.load(settings, None)
    one = Trainer(settings, EXPERIMENT.model.make(settings, {}), loss, data)
    other = trainer(dropout=0.0)
    np.testing.assert_allclose(one.advance(), 2 * other.advance(), rtol=1e-5)
    assert one.saved.keys() == {"arrays"} and other.saved.keys() == {"arrays", "carry"}
    assert float(one.advance()) != pytest.approx(2 * float(other.advance()), rel=1e-3)
    want = [np.square(one.model(b.x)[1] - b.y).mean() for b in data.held_out]
    np.testing.assert_allclose(one.evaluate(), np.mean(want), rtol=1e-5)


def test_dropout_is_drawn_by_the_step():
    run = trainer(learning_rate=0.0)
    batch = run.data.train[0]
    run.data = run.data._replace(train=[batch] * 9)

    def loss(step):
        run.step = step
        run.carry = distributed.by_rows(run.start(run.model, batch))
        return float(run.advance())

    losses = [loss(step) for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


# runs that are stopped


def test_a_killed_run_goes_on(whole, tmp_path):
    """By the system, in the middle of a step, while a checkpoint is written."""
    out = tmp_path / "cut"
    code = f"""
import os, signal
from tests.experiments import helpers, toy
with helpers.before_step(5, lambda: os.kill(os.getpid(), signal.SIGKILL)):
    toy.main(["train", "--out", {str(out)!r}, "--save-seconds", "0"])
"""
    devices = {"JAX_NUM_CPU_DEVICES": str(jax.device_count())}  # as those of `whole`
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | devices,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 3 <= Checkpoints(out, read_only=True).newest <= 5
    assert train(out, "--resume") == 0
    same_runs(whole, out)


def test_an_interrupted_run_goes_on(whole, tmp_path, capsys):
    """Between two rows of the losses, the first of which it has to keep."""
    out = tmp_path / "cut"
    with before_step(100, lambda: signal.raise_signal(signal.SIGTERM)):
        assert train(out) == 130
    printed = capsys.readouterr().err
    assert "Stopping after this step" in printed and "Stopped at step 101" in printed
    with before_step(202, lambda: signal.raise_signal(signal.SIGINT)):
        assert train(out, "--resume") == 130
    facts = Checkpoints(out, read_only=True).facts()
    assert len(facts["pending"]) == 1  # rows are of two steps
    assert facts["step"] == 203 and not (out / "report.html").exists()
    assert train(out, "--resume") == 0
    assert "Going on from step 203 of 402." in capsys.readouterr().out
    same_runs(whole, out)


@pytest.mark.parametrize("at, before", [(100, 50), (402, 400)])
def test_a_stopped_evaluation_is_done_again(whole, tmp_path, monkeypatch, at, before):
    """It is left before its end; the last one is added to what was saved."""
    cut, note = tmp_path / "cut", ("--note", "of its own")
    evaluate = Trainer.evaluate

    def interrupted(self, stop):
        if self.step == at:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", interrupted)
        assert train(cut, *note) == 130
    facts = Checkpoints(cut, read_only=True).facts()
    assert facts["step"] == at and facts["held_out"][-1]["step"] == before
    assert train(cut, *note, "--resume") == 0
    same_runs(whole, cut)


def test_a_second_interrupt_stops_at_once(tmp_path, capsys):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with before_step(3, twice):
        assert train(tmp_path / "run", "--save-seconds", 0) == 130
    assert "toy: interrupted; what was saved is kept" in capsys.readouterr().err
    assert Checkpoints(tmp_path / "run", read_only=True).newest == 3
    assert signal.getsignal(signal.SIGINT) == before


# a run that is there


def test_a_run_is_not_overwritten_and_fits_its_checkpoint(finished, capsys):
    before = (finished / "report.html").read_bytes()
    told = lambda *options: error(capsys, train(finished, *options))
    assert "holds a run already; --resume goes on with it" in told()
    line = told("--resume", "--hidden", 4)
    assert line.startswith("toy: error: --hidden 4: the checkpoint in ")
    assert "was made with 3; leave the option out" in line
    assert "--deep: the checkpoint in" in told("--resume", "--deep")
    assert "--steps 401: the checkpoint" in told("--resume", "--steps", 401)
    line = told("--resume", "--steps", 403, "--data", "odd")
    assert "the checkpoint there was trained on other data" in line
    assert (finished / "report.html").read_bytes() == before


def test_a_run_goes_on_to_more_steps_with_other_options(finished, capsys):
    assert train(finished, "--resume", "--steps", 404, "--dropout", 0) == 0
    assert "Going on from step 402 of 404." in capsys.readouterr().out
    facts = Checkpoints(finished, read_only=True).facts()
    assert facts["step"] == 404 and facts["settings"]["dropout"] == 0


def test_a_finished_run_is_shown_again_as_it_was(whole, finished):
    (finished / "result-test.json").unlink()
    assert train(finished, "--resume", "--learning-rate", 0.5) == 0
    same_runs(whole, finished)
    assert "<td class=n>0.5</td>" in (finished / "report.html").read_text()  # dropout
    assert (
        "<th>learning_rate</th><td class=n>0.01<"
        in (finished / "report.html").read_text()
    )


def test_what_only_reads_writes_nothing(finished):
    files = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    load(EXPERIMENT, finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == files


# what goes wrong


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--steps", 50, "--save-seconds", 0, "--learning-rate", "1e30"]
    line = error(capsys, train(out, *options))
    assert "try a lower --learning-rate; the last checkpoint is of step" in line
    facts = Checkpoints(out, read_only=True).facts()
    rows = [row["loss"] for row in facts["train"]] + facts["pending"]
    assert np.isfinite(rows).all() and facts["step"] < 50
    line = error(capsys, train(tmp_path / "none", *options[:2], *options[4:]))
    assert "no checkpoint was written" in line


def test_spoilt_weights_are_never_saved(tmp_path, capsys, monkeypatch):
    """Where the loss does not show it: the weights are huge, not the answers."""

    def advance(self):
        loss = plain(self)
        if self.step == 5:
            weights = jax.tree.map(lambda w: w * jnp.nan, self.state.weights)
            self.state = self.state._replace(weights=weights)
        return loss

    plain = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", advance)
    out = tmp_path / "run"
    line = error(capsys, train(out, "--steps", 60, "--save-seconds", 0))
    assert "the weights are not finite at step 5: try a lower --learning-rate; " in line
    assert Checkpoints(out, read_only=True).newest == 4


def test_no_space_for_a_checkpoint(tmp_path, capsys, monkeypatch):
    usage = lambda path: SimpleNamespace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", usage)
    line = error(capsys, train(tmp_path / "run", "--steps", 2))
    assert "no space left for a checkpoint of 1 MB" in line


def test_a_damaged_checkpoint_is_one_line(finished, tmp_path, capsys):
    for path in (finished / "checkpoints" / "402").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert "cannot be read" in error(capsys, train(finished, "--resume"))
    report = ["report", "--runs", str(finished), "--out", str(tmp_path / "both")]
    assert "cannot be read" in error(capsys, main(report))


def test_folders_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    line = error(capsys, train(tmp_path / "file" / "sub"))
    assert f"--out {tmp_path / 'file'}" in line and "cannot write there" in line
    line = error(capsys, train(tmp_path / "run", "--data-dir", tmp_path))
    assert "--data-dir: changes nothing with even numbers" in line
    assert not (tmp_path / "run").exists()


def test_runs_that_begin_at_once_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(make_folder, [tmp_path / "runs"] * 2000)]
    assert [*(tmp_path / "runs").iterdir()] == []


@pytest.mark.parametrize(
    "other", [{"settings": {"cell": "gru"}}, {"train": [{"step": 2, "nats": 1.0}]}]
)
def test_a_run_of_another_experiment_or_version(other, finished, capsys, monkeypatch):
    facts = Checkpoints.facts
    monkeypatch.setattr(Checkpoints, "facts", lambda self: facts(self) | other)
    line = error(capsys, train(finished, "--resume"))
    assert "holds a run of another experiment or version" in line


# options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--hidden", "0"], "--hidden: expected a whole number of at least 1, got 0"),
        (["--hidden", "2.5"], "expected a whole number of at least 1, got 2.5"),
        (["--dropout", "nan"], "a number of at least 0 and at most 0.95, got nan"),
        (["--dropout", "1"], "a number of at least 0 and at most 0.95, got 1"),
        (["--learning-rate", "-1"], "expected a number of at least 0, got -1"),
        (["--seed", "-1"], "--seed: expected a whole number of at least 0"),
        (["--data", "prime"], "--data: invalid choice: 'prime'"),
        (["--width", "3"], "unrecognized arguments: --width"),
    ],
)
def test_bad_options(options, told, capsys):
    assert told in refused(capsys, main, "train", *options)


def test_options_are_named_once(capsys):
    assert fixed(Settings()) == ["hidden", "deep", "seed"]
    with pytest.raises(SystemExit) as done:
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert done.value.code == 0
    for line in (
        "--data {even,odd} which numbers (default: 'even')",
        "--deep, --no-deep one layer more (default: False)",
        "--learning-rate LEARNING_RATE its peak, after the warm-up (default: 0.01)",
        "--out OUT (default: runs/toy)",
    ):
        assert line in text


@pytest.mark.parametrize(
    "name", [p.parent.name for p in sorted(ROOT.glob("experiments/*/__main__.py"))]
)
def test_help_imports_nothing_heavy(name):
    """So that it answers at once."""
    code = f"""
import sys
from experiments.{name}.__main__ import main
try:
    main(["train", "--help"])
except SystemExit:
    print([m for m in ("jax", "numpy", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_reader_that_has_enough():
    code = """
from experiments.frame.cli import answer
def run():
    for _ in range(10**5):
        print("line")
answer("x", run)
"""
    command = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "line\n" and done.stderr == ""


# several runs


def test_report_of_runs_and_of_their_rows_is_the_same(whole, tmp_path, capsys):
    other = tmp_path / "other"
    assert train(other, "--steps", 2, "--seed", 1) == 0
    capsys.readouterr()
    both, again = tmp_path / "both", tmp_path / "again"
    runs = ["--runs", str(whole), str(tmp_path)]
    assert main(["report", *runs, "--out", str(both)]) == 0
    printed = capsys.readouterr().out
    assert "| model | seeds | squared error | weights | minutes |" in printed
    assert "| RNN 3 | 1 | 0." in printed and "| RNN 3 (steps 2) | 1 | 0." in printed
    rows = (both / "results.jsonl").read_text()
    first = json.loads(rows.splitlines()[0])
    assert not first.keys() & {"step", "sentences"} and first["source"] == "made"
    assert first["settings"]["seed"] == 0 and first["weights"] == 19
    path = str(both / "results.jsonl")
    for options in (["--results", path], ["--results", path, *runs]):
        assert main(["report", *options, "--out", str(again)]) == 0
        assert (again / "results.jsonl").read_text() == rows
        assert (again / "report.html").read_text() == (both / "report.html").read_text()


def test_a_run_that_was_trained_further_is_not_reported(finished, tmp_path, capsys):
    path = finished / "result-test.json"
    path.write_text(path.read_text().replace('"step": 402', '"step": 401'))
    report = ["report", "--runs", str(finished), "--out", str(tmp_path / "out")]
    assert "trained further since it was tested" in error(capsys, main(report))


def test_reports_of_what_is_no_result_of_this_experiment(whole, tmp_path, capsys):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    told = lambda *options: error(capsys, main(["report", "--out", str(out), *options]))
    row = {"title": "adding", "digest": "", "scores": {}, "weights": 1, "minutes": 1}
    for settings in ({"cell": "gru"}, asdict(Settings()) | {"cell": "gru"}):
        path.write_text(json.dumps({**row, "settings": settings}) + "\n")
        line = told("--results", str(path))
        assert "adding: a result of another experiment" in line
    path.write_text('{"title": "adding"}\n')
    assert "rows.jsonl, line 1: not a result of a run" in told("--results", str(path))
    path.write_text("")
    assert "no rows" in told("--results", str(path))
    assert "no finished run there" in told("--runs", str(tmp_path), str(path))
    assert "--runs or --results" in told()
    assert not out.exists()
    line = error(capsys, main(["report", "--runs", str(whole), "--out", str(whole)]))
    assert "holds a run; choose another folder" in line


def label(settings):
    return f"{settings['model'].upper()}, {settings['pooling']}"


def row(score, **options):
    settings = {"model": "gru", "pooling": "max", "seed": 0, **options}
    return {"title": "t", "digest": "d", "scores": {"accuracy": score}, "weights": 9,
            "minutes": 1.0, "settings": settings}  # fmt: skip


def test_rows_that_differ_in_their_seed_are_one():
    rows = [row(80.0), row(82.0, seed=1), row(9.0, hidden=3)]
    named = results.groups(rows, label)
    assert [*named] == ["GRU, max", "GRU, max (hidden 3)"]
    head, lines = results.score_rows(named, {})
    assert head == ["model", "seeds", "accuracy", "weights", "minutes"]
    assert lines[0] == ["GRU, max", 2, "81.0 (80.0 to 82.0)", "9", "1.0 (1.0 to 1.0)"]
    assert results.markdown(head, lines).startswith("| model | seeds | accuracy |")
    again = {**row(80.5), "settings": dict(reversed(row(0)["settings"].items()))}
    assert results.distinct([*rows, again]) == [again, *rows[1:]]


def test_groups_are_told_apart_and_none_is_lost():
    flags = [{"crf": a, "jamo": b} for a in (True, False) for b in (True, False)]
    named = results.groups([row(1.0, **f) for f in flags], label)
    assert [*named] == [
        "GRU, max", "GRU, max (no jamo)", "GRU, max (no crf)",
        "GRU, max (no crf, no jamo)",
    ]  # fmt: skip
    rows = [row(5.0), row(None, seed=1), row(7.0, seed=2)]
    _, lines = results.score_rows(results.groups(rows, label), {})
    assert lines[0][2] == "6.0 (5.0 to 7.0) (2 of 3)"
    _, lines = results.score_rows(results.groups([row(None)], label), {})
    assert lines[0][2] == ""
