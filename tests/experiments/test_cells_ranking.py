"""Cells ranked under one budget, as their user runs it."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, log_softmax

import jaxseq
from experiments.cells import data, experiment, model
from experiments.cells.__main__ import main
from experiments.cells.experiment import EXPERIMENT
from experiments.cells.mingru import MINGRU
from experiments.cells.settings import CELLS, preset
from experiments.frame.checkpoint import Checkpoints
from experiments.frame.errors import Diverged, InputError
from experiments.frame.experiment import load
from experiments.language_model import data as texts
from experiments.memory import data as sums
from experiments.tagging import source
from tests.experiments.helpers import before_step, error, interrupt
from tests.reference_cells import gates

SMALL = ["--steps", 8, "--budget", 400, "--embedding", 4, "--length", 12]
TWO = ["--tasks", "adding", "--cells", "rnn", "mingru", "--rates", 1e-9, 0.02, 1e30]
RATES = ("1e-09", "0.02")


@pytest.fixture(autouse=True, scope="module")
def little_data():
    """Few sequences, a short text, and one module of Python's library a part."""
    modules = {"train": "bisect", "validation": "sched", "test": "this"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "ROWS", 20)
        patch.setattr(source, "MODULES", modules)
        patch.setattr(texts, "documentation", lambda: "a text of few words; " * 2500)
        yield
    data.parts.cache_clear()


def run(command, out, *options):
    return main([command, "--out", str(out), *map(str, (*SMALL, *options))])


def score(out):
    (value,) = json.loads((out / "result-test.json").read_text())["scores"].values()
    return value


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Two cells that add, stopped once on the way."""
    out = tmp_path_factory.mktemp("cells") / "all"
    with before_step(3, interrupt):
        assert run("rank", out, *TWO, "--seeds", 2) == 130
    assert run("rank", out, *TWO, "--seeds", 2, "--resume") == 0
    return out


def test_ranking(ranked):
    """Of each cell the rate whose held-out loss is least, with all seeds."""
    lines = (ranked / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4  # two cells, two seeds
    means = {}
    for cell in ("rnn", "mingru"):
        held_out = {}
        for rate in RATES:
            run = Checkpoints(ranked / f"adding-{cell}-{rate}-0", read_only=True)
            held_out[float(rate)] = run.facts()["held_out"][-1]["loss"]
        best = min(held_out, key=lambda rate: held_out[rate])
        own = [row for row in rows if row["settings"]["cell"] == cell]
        assert [row["settings"]["seed"] for row in own] == [0, 1]
        for row in own:
            assert row["settings"]["learning_rate"] == best
            assert abs(row["recurrent"] / 400 - 1) <= 0.05 and row["cpu_ms"] > 0
            folder = ranked / f"adding-{cell}-{best}-{row['settings']['seed']}"
            assert row["scores"] == {"squared error": score(folder)}
        means[cell] = np.mean([row["scores"]["squared error"] for row in own])
    page = (ranked / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    # the better first
    assert {rate for rate, _ in rates_of(ranked)} == {1e-9, 0.02, 1e30}
    assert "<h2>Learning rates</h2>" in page
    names = {"rnn": "<td class=n>RNN", "mingru": "<td class=n>minGRU"}
    places = page[page.index("Places") :]
    first, second = sorted(names, key=lambda cell: places.index(names[cell]))
    assert means[first] < means[second]


def test_what_is_finished_is_not_trained_again(ranked, monkeypatch, capsys):
    assert "--resume" in error(capsys, run("rank", ranked, *TWO, "--seeds", 2))
    monkeypatch.setattr(experiment, "fit", lambda *args, **how: pytest.fail())
    assert run("rank", ranked, *TWO, "--seeds", 2, "--resume") == 0


def test_the_best_rate_is_between_others():
    """Rates are tried beyond the best as long as it is the least or greatest."""
    asked = []

    def loss(best):
        return lambda rate: asked.append(rate) or abs(np.log(rate / best))

    assert experiment.searched([0.008, 0.02, 0.05], loss(0.021))[0] == 0.02
    assert asked == [0.008, 0.02, 0.05]
    assert experiment.searched([0.008, 0.02], loss(0.11))[:2] == [0.12, 0.05]
    assert asked[3:] == [0.008, 0.02, 0.05, 0.12, 0.3]
    assert experiment.searched([0.02, 0.05], loss(0.001))[0] == 0.0013
    assert asked[8:] == [0.02, 0.05, 0.008, 0.0032, 0.0013, 0.00052]
    assert experiment.searched([0.02], loss(0.1)) == [0.02]  # no choice was asked for
    infinite = lambda rate: np.inf if rate > 0.1 else -rate
    assert experiment.searched([0.02, 0.05], infinite) == [0.05, 0.02]
    assert experiment.searched([0.2, 0.3], infinite) == []


def rates_of(out):
    """By rate and seed, the held-out loss of each run, None if it diverged."""
    rows = map(json.loads, (out / "rates.jsonl").read_text().splitlines())
    at = lambda row: (row["settings"]["learning_rate"], row["settings"]["seed"])
    return {at(row): row["held_out"] for row in rows}


def test_a_rate_that_diverges_is_not_chosen(tmp_path, monkeypatch, capsys):
    """The others go on; nor is one that diverges with another seed than the first."""
    out, plain = tmp_path / "all", experiment.fit

    def fit(how, given, out, **more):
        if (given["learning_rate"], given["seed"]) == (0.02, 1):
            out.mkdir()
            raise Diverged("the loss is nan at step 4: try a lower one")
        return plain(how, given, out, **more)

    monkeypatch.setattr(experiment, "fit", fit)
    options = ["--tasks", "adding", "--cells", "rnn"]
    options += ["--rates", 1e30, 1e-9, 0.001, 0.02, "--seeds", 2]
    assert run("rank", out, *options) == 0
    found = rates_of(out)
    assert found[0.02, 0] < found[0.001, 0] < found[1e-9, 0]
    assert found[1e30, 0] is None and found[0.02, 1] is None
    assert (1e30, 1) not in found and (1e-9, 1) not in found
    rows = map(json.loads, (out / "results.jsonl").read_text().splitlines())
    assert [row["settings"]["learning_rate"] for row in rows] == [0.001, 0.001]
    printed = capsys.readouterr().out
    (line,) = [row for row in printed.splitlines() if row.startswith("| adding | RNN")]
    _, *cells, _ = map(str.strip, line.split("|"))
    marks = [cell.lstrip("0123456789.") for cell in cells[2:]]
    assert marks == ["", " *", " †", "diverged"]
    # what diverged is not trained again either
    monkeypatch.setattr(experiment, "fit", lambda *args, **how: pytest.fail())
    assert run("rank", out, *options, "--resume") == 0


def test_a_ranking_of_which_nothing_is_left_is_refused(tmp_path, capsys):
    options = ["--tasks", "adding", "--cells", "rnn", "--rates", 1e30, "--seeds", 1]
    assert "--rates: every run diverged" in error(
        capsys, run("rank", tmp_path, *options)
    )


def test_tags(tmp_path):
    """The share of tags that are right, sequence by sequence, without padding."""
    out = tmp_path / "run"
    assert run("train", out, "--task", "source", "--cell", "mgu") == 0
    found = load(EXPERIMENT, out)
    right = []
    for batch in data.load(found.settings, None).tests["test"]:
        for words, tags, n in zip(batch.words, batch.tags, batch.lengths, strict=True):
            if n:
                _, scores = found.model(jnp.asarray(words[None, :n]))
                right += list(np.asarray(scores[0]).argmax(-1) == tags[:n])
    assert score(out) == pytest.approx(100 * np.mean(right))


def test_text(tmp_path):
    """The bits of each stream read in one piece: the state is carried on."""
    out = tmp_path / "run"
    assert run("train", out, "--task", "documentation", "--cell", "gru") == 0
    found = load(EXPERIMENT, out)
    windows = data.load(found.settings, None).tests["test"]
    assert len(windows) > 1 and windows[0].fresh and not windows[1].fresh
    tokens, targets, mask = (
        np.concatenate([getattr(window, name) for window in windows], 1)
        for name in ("tokens", "targets", "mask")
    )
    _, scores = found.model(jnp.asarray(tokens))
    p = np.take_along_axis(log_softmax(scores, -1), targets[..., None], -1)[..., 0]
    assert score(out) == pytest.approx(-p[mask].mean() / np.log(2), rel=1e-4)


@pytest.mark.every(2)
@pytest.mark.parametrize("cell", CELLS)
def test_widths(cell):
    """Those of the budget, and of it alone; the paper's heads divide an sLSTM's."""
    for task in ("adding", "documentation"):
        settings = replace(preset({"task": task}), cell=cell, budget=3000)
        made = model.make(settings, {"vocabulary": "abcde"})
        n = model.weights(made.recurrent)
        assert abs(n / 3000 - 1) <= 0.05
        assert n == sum(w.size for w in jax.tree.leaves(nnx.state(made.recurrent)))
    with pytest.raises(InputError, match="--budget 3: no width"):
        model.make(replace(settings, budget=3), {"vocabulary": "abcde"})


@pytest.fixture
def wide():
    """Numbers of 64 bits."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def test_a_mingru_has_the_equations_of_the_paper(wide):
    params = MINGRU.init(jax.random.key(0), 3, 5, dtype=jnp.float64)
    params = params._replace(b=jax.random.normal(jax.random.key(1), (10,)))
    x = jax.random.normal(jax.random.key(2), (7, 3))
    _, y = jaxseq.cell(MINGRU.update, params, x, MINGRU.zeros(params))
    h, given = np.zeros(5), zip(gates(params.w_x, 2), gates(params.b, 2), strict=True)
    (W_z, b_z), (W_h, b_h) = given
    for t in range(7):
        z = expit(x[t] @ W_z + b_z)
        h = (1 - z) * h + z * (x[t] @ W_h + b_h)
        np.testing.assert_allclose(y[t], h, atol=1e-12)
