"""What networks forget, as its user runs it: train, sweep, gradients, gates."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from scipy.special import log_softmax

import jaxseq
import jaxseq.nn
from experiments.frame.experiment import load
from experiments.frame.trainer import Trainer
from experiments.language_model.__main__ import main as language_model
from experiments.memory import data, experiment, gates, gradients, model
from experiments.memory.__main__ import main
from experiments.memory.data import BLANK, GO, Batches
from experiments.memory.experiment import EXPERIMENT, answers, first_solved
from experiments.memory.model import Memory
from experiments.memory.settings import CELLS, Settings, preset
from tests.experiments.helpers import error, refused, resumes
from tests.reference_cells import indrnn, over_time

SMALL = ["--hidden", 8, "--batch", 4, "--steps", 5]
SHORT = [*SMALL, "--length", 4]


def run(command, out, *options):
    return main([command, "--out", str(out), *map(str, options)])


def lines(out):
    return (out / "results.jsonl").read_text().splitlines()


@pytest.fixture(autouse=True, scope="module")
def few_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "ROWS", 20)
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Runs of every cell, over four steps."""
    out = tmp_path_factory.mktemp("memory") / "sweep"
    cells = ["lstm-chrono", *CELLS]
    assert run("sweep", out, *SMALL, "--lengths", 4, "--cells", *cells) == 0
    return out


@pytest.mark.every(2)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, swept):
    out = swept / f"{cell}-4"
    result = json.loads((out / "result-test.json").read_text())
    page = (out / "report.html").read_text()
    said = re.search(r"squared error ([\d.]+) .0.1667", page)
    assert said and f"{result['scores']['squared error']:.5f}" == said[1]
    assert page.count("data:image/png;base64,") == 2
    # the checkpoint gives what the training ended with
    found = load(EXPERIMENT, out)
    said, test = answers(found.model, data.load(found.settings).tests["test"])
    np.testing.assert_allclose(
        np.square(said[:, 0] - test.y).mean(), result["scores"]["squared error"]
    )


def test_copy(tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", out, *SMALL, "--length", 6, "--task", "copy") == 0
    scores = json.loads((out / "result-test.json").read_text())["scores"]
    assert scores["without memory"] == pytest.approx(10 * np.log(8) / 26)
    # the test's loss and share, as SciPy and a loop have them
    found, batch = load(EXPERIMENT, out).model, Batches("copy", 6, 20, data.TEST)
    nats, right = [], []
    for i in range(data.TEST_BATCHES):
        logits = log_softmax(experiment.answer(found, batch[i].x), -1)
        for row, y in zip(logits, batch[i].y, strict=True):
            nats += [-row[t, y[t]] for t in range(26)]
            right += [int(row[t].argmax()) == y[t] for t in range(16, 26)]
    assert scores["nats per step"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert scores["symbols right"] == pytest.approx(100 * np.mean(right))
    printed = capsys.readouterr().out
    assert f"nats per step {scores['nats per step']:.5f} (0.7998 without" in printed
    assert "% of the symbols right" in printed
    assert "nats per step" in (out / "report.html").read_text()


def test_it_learns_to_add():
    """Ten steps long; without memory the squared error is 0.167."""
    settings = Settings(length=10, hidden=16, steps=300)
    loaded = data.load(settings)
    made = Trainer(settings, model.make(settings, {}), model.loss, loaded)
    assert made.evaluate() > 0.2
    while made.step < settings.steps:
        made.advance()
    assert made.evaluate() < 0.02
    said, test = answers(made.model, loaded.tests["test"])
    assert np.corrcoef(said[:, 0], test.y)[0, 1] > 0.95


def test_what_is_drawn():
    for T in (2, 7):
        x, y = Batches("adding", T, 400, 3)[5]
        assert x.shape == (400, T, 2) and (x[..., 0] >= 0).all() and (x < 1.001).all()
        assert (x[:, : T // 2, 1].sum(1) == 1).all()
        assert (x[:, T // 2 :, 1].sum(1) == 1).all()
        assert set(np.unique(x[..., 1])) <= {0, 1}
        assert x[..., 1].any(0).all()  # each step is marked at some time
        np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(1), y, rtol=1e-6)
    x, y = Batches("copy", 5, 300, 3)[5]
    assert x.shape == (300, 25, 10) and (x.sum(-1) == 1).all()
    given = x.argmax(-1)
    assert set(np.unique(given[:, :10])) == set(range(8))
    assert (given[:, 10:14] == BLANK).all() and (given[:, 15:] == BLANK).all()
    assert (given[:, 14] == GO).all()
    assert (y[:, :15] == BLANK).all() and (y[:, 15:] == given[:, :10]).all()


def test_any_batch_by_its_number():
    batches = Batches("adding", 9, 4, 0)
    assert (batches[3].x == Batches("adding", 9, 4, 0)[3].x).all()
    drawn = [batches[0], batches[1], Batches("adding", 9, 4, 1)[0],
             Batches("adding", 9, 4, data.HELD_OUT)[0],
             Batches("adding", 9, 4, data.TEST)[0]]  # fmt: skip
    assert len({batch.x.tobytes() for batch in drawn}) == 5
    # held out is the same whatever the seed
    made = [data.load(Settings(seed=seed)).held_out for seed in (0, 1)]
    for a, b in zip(*made, strict=True):
        assert (a.x == b.x).all()


def test_what_no_memory_gives():
    """The loss of the best answers that do not look back, on what is drawn."""
    y = Batches("adding", 8, 20_000, 0)[0].y
    assert np.square(1 - y).mean() == pytest.approx(
        data.baseline("adding", 8), rel=0.03
    )
    assert data.baseline("copy", 100) == pytest.approx(0.1733, abs=1e-4)
    assert data.baseline("copy", 1000) == pytest.approx(0.0204, abs=1e-4)
    rows = [
        {"step": i, "loss": loss} for i, loss in ((1, 0.3), (2, 0.0099), (3, 0.001))
    ]
    assert first_solved(rows, 0.01) == 2
    assert first_solved(rows[:1], 0.01) is None


def test_how_cells_begin():
    weights = lambda **how: Memory(
        Settings(hidden=64, **how), rngs=nnx.Rngs(0)
    ).recurrent.weights[0]
    H = 64
    for bias in (1.0, 3.0):
        b = np.asarray(weights(forget_bias=bias).b[...])
        assert (b[H : 2 * H] == bias).all() and not np.delete(b, slice(H, 2 * H)).any()
    i, f, g, o = np.split(np.asarray(weights(span=50).b[...]), 4)
    np.testing.assert_allclose(i, -f)
    assert not g.any() and not o.any() and (f >= 0).all() and (f <= np.log(49)).all()
    assert np.exp(f).max() > 40 and np.median(np.exp(f)) == pytest.approx(25, abs=8)
    r, z, n = np.split(np.asarray(weights(cell="gru", span=50).b[...]), 3)
    assert not r.any() and not n.any() and np.exp(z).max() > 40
    assert (weights(cell="irnn").w_h[...] == np.eye(H)).all()
    # relu stays relu, and tanh tanh
    x = 100 * jnp.ones((1, 3, 2))
    high = {c: float(Memory(Settings(cell=c), rngs=nnx.Rngs(0)).recurrent(x)[1].max())
            for c in ("rnn", "rnn-relu")}  # fmt: skip
    assert high["rnn"] <= 1 < high["rnn-relu"]


def test_an_indrnn_has_the_equations_of_the_paper_within_its_bounds():
    settings = Settings(cell="indrnn", length=20, hidden=64)
    layers = Memory(settings, rngs=nnx.Rngs(0)).recurrent
    most = 2 ** (1 / 20)
    for weights, least in zip(layers.weights, (0, 1 / most), strict=True):
        u = weights.extra[...]
        assert least <= u.min() < least + 0.05 and most - 0.05 < u.max() <= most
        assert len(u) == 64 and weights.w_h is None
    layers.weights[0].extra[...] = u.at[:2].set(jnp.array([3.0, -3.0]))
    x = jax.random.normal(jax.random.key(1), (20, 2))
    y = np.asarray(x)
    for weights in layers.weights:
        u = np.clip(weights.extra[...], -most, most)
        params = weights.w_x[...], None, weights.b[...], u
        _, y = over_time(indrnn)(params, np.zeros(64), y)
    np.testing.assert_allclose(layers(x)[1], y, rtol=1e-4, atol=1e-5)


@pytest.fixture
def wide():
    """Numbers of 64 bits."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


LAYERS = {"lstm": jaxseq.nn.LSTM, "gru": jaxseq.nn.GRU}


@pytest.mark.parametrize("cell", LAYERS)
def test_gradients_by_differences(cell, wide):
    """Against small changes of the state, carried through the whole sequence."""
    T, H = 2, 3
    layer = LAYERS[cell](2, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (T, 2), jnp.float64)
    h, state = jax.jit(lambda x: gradients.norms(layer, x, H))(x)
    assert h.shape == state.shape == (T + 1,)

    def restore(s):
        parts = jnp.split(s, len(s) // H)
        return (jaxseq.LSTMState(*parts),) if cell == "lstm" else tuple(parts)

    end = jax.jit(lambda s, x: ravel_pytree(layer(x, restore(s))[0])[0])
    start = np.zeros(2 * H if cell == "lstm" else H)
    for t in range(T + 1):
        s = end(start, x[:t])
        e = 1e-6 * np.eye(len(s))
        steps = [(end(s + d, x[t:]) - end(s - d, x[t:])) / 2e-6 for d in e]
        J = np.stack(steps, axis=1)
        size = lambda J: np.sqrt(np.square(J).sum() / len(J))
        np.testing.assert_allclose(h[T - t], size(J[:H, :H]), rtol=1e-6)
        np.testing.assert_allclose(state[T - t], size(J), rtol=1e-6)


def test_gradients_of_an_elman_network(wide):
    """The product of diag(1 - h²) Wᵀ, as Pascanu and others, 2013, have it."""
    T, H = 6, 4
    layer = jaxseq.nn.RNN(2, H, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, T, 2), jnp.float64)
    w = np.asarray(layer.weights[0].w_h[...])
    expected = np.zeros(T + 1)
    outputs = jax.jit(lambda x: layer(x)[1])
    for hidden in map(np.asarray, outputs(x)):
        J = np.eye(H)
        for k in range(T + 1):
            expected[k] += np.linalg.norm(J) / np.sqrt(H) / 2
            if k < T:
                J = J @ np.diag(1 - hidden[T - 1 - k] ** 2) @ w.T
    h, state = gradients.mean_norms(layer, x, H)
    np.testing.assert_allclose(h, expected, rtol=1e-12)
    np.testing.assert_allclose(state, expected, rtol=1e-12)


def test_gradients_command(tmp_path, capsys, monkeypatch):
    few = ("irnn", "lstm-0")
    models = {name: gradients.MODELS[name] for name in few}
    assert len(gradients.MODELS) == 8
    monkeypatch.setattr(experiment, "MODELS", models)
    out = tmp_path / "gradients"
    options = ["--sequences", 2, *SHORT]
    assert run("gradients", out, *options) == 0
    assert (out / "gradients.png").exists()
    page = (out / "report.html").read_text()
    assert "LSTM, forget bias 0" in page and "(h, c)" in page
    rows = [json.loads(line) for line in lines(out)]
    assert len(rows) == 4 and all(len(row["h"]) == 5 for row in rows)
    assert all(row["h"][0] == pytest.approx(1) for row in rows)
    first = {row["model"]: row["h"] for row in rows if row["when"][:2] == "at"}
    last = {row["model"]: row["h"] for row in rows if row["when"][:2] != "at"}
    assert first.keys() == last.keys() and all(first[m] != last[m] for m in first)
    # of the models, as they are at the start and in their folders
    assert first["IRNN"][-1] > 0.2 > 0.05 > first["LSTM, forget bias 0"][-1]
    found = load(EXPERIMENT, out / "lstm-0").model.recurrent
    x = Batches("adding", 4, 2, data.TEST)[0].x
    norms = jax.jit(lambda row: gradients.norms(found, row, 8)[0])
    h = np.mean([norms(row) for row in x], axis=0)
    np.testing.assert_allclose(last["LSTM, forget bias 0"], h, rtol=1e-4)
    capsys.readouterr()
    assert "--resume goes on" in error(capsys, run("gradients", out, *options))


def test_sweep_goes_on_and_is_reported(swept, tmp_path, capsys):
    out, again = tmp_path / "sweep", tmp_path / "again"
    shutil.copytree(swept, out)
    more = [*SMALL, "--lengths", 4, 10, "--cells", "lstm-chrono", "--resume"]
    assert run("sweep", out, *more) == 0
    printed = capsys.readouterr().out.split("Report: ")[-2]
    assert re.findall(r"\nadding, (\d+) steps\n", printed) == ["4", "10"]
    assert "LSTM, chrono" in printed
    assert lines(swept)[0] == lines(out)[0]  # as it was
    assert (out / "length-adding.png").exists()
    assert "shortest that it did not" in (out / "report.html").read_text()
    # the folders of its runs, and its rows, are read again
    assert run("report", again, "--results", out / "results.jsonl", "--runs", out) == 0
    rows = [json.loads(line)["settings"] for line in lines(again)]
    spans = {(row["cell"], row["length"], row["span"]) for row in rows}
    chrono = {("lstm", 4, 4), ("lstm", 10, 10)}
    assert spans == {*((cell, 4, None) for cell in CELLS), *chrono}
    assert {*lines(swept), *lines(out)} == {*lines(again)} and len(lines(again)) == 8
    rates = {row["cell"]: row["learning_rate"] for row in rows}
    slow = dict.fromkeys(("rnn", "rnn-relu", "irnn"), 0.001)
    assert rates == {**slow, **dict.fromkeys(("indrnn", "lstm", "gru"), 0.01)}


def test_a_stopped_run_goes_on(swept, tmp_path):
    resumes(main, swept / "lstm-4", tmp_path / "cut", *SHORT)


def test_mistakes(swept, tmp_path, capsys):
    out = tmp_path / "run"
    told = lambda *options: error(capsys, run("train", out, *SHORT, *options))
    line = told("--cell", "rnn", "--span", 9)
    assert "--span: changes nothing with the cell rnn" in line
    line = told("--cell", "gru", "--forget-bias", 1)
    assert "--forget-bias: changes nothing with the cell gru" in line
    line = told("--forget-bias", 1, "--span", 9)
    assert "--forget-bias: changes nothing with --span" in line
    assert "--length 1: at least 2" in told("--length", 1)
    assert not out.exists()
    for option, value in (("--cell", "esn"), ("--span", 1), ("--steps", 0)):
        assert option in refused(capsys, main, "train", option, value)
    out = swept / "lstm-4"
    assert "--resume goes on" in told()
    assert "--length 7: the checkpoint" in told("--length", 7, "--resume")
    assert "holds a run" in error(capsys, run("sweep", out, "--lengths", 4))
    assert "holds a run" in error(capsys, run("gradients", out))
    line = error(capsys, run("sweep", tmp_path / "s", "--lengths", 9, 1))
    assert "--length 1" in line and not (tmp_path / "s").exists()
    copy = ["--task", "copy", "--cells", "gru-chrono", "--lengths", 1]
    assert "--span 1: chrono" in error(capsys, run("sweep", tmp_path / "s", *copy))


def test_a_forget_gate_is_found_as_it_was_made(wide):
    """In two layers of two units: gates that read the input, the state, or nothing."""
    layer = jaxseq.nn.LSTM(
        1, 2, num_layers=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(jax.random.key(1), (7, 1), jnp.float64)
    for weights in layer.weights:
        weights.b[...] = weights.b[...].at[2:4].set(jnp.array([0.3, -2.0]))
    lower = layer.weights[0]
    lower.w_h[...] = lower.w_h[...].at[:, 2].set(0)
    lower.w_x[...] = lower.w_x[...].at[:, 2].set(jnp.array([5.0]))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    trace = jax.jit(lambda x: [gates.trace(layer, x, n) for n in (0, 1)])
    (c, forget), (upper_c, upper_forget) = trace(x)
    assert c.shape == forget.shape == (7, 2)
    np.testing.assert_allclose(forget[:, 0], sigmoid(5 * x[:, 0] + 0.3), rtol=1e-12)
    run_over = jax.jit(lambda x, state: layer(x, state)[0])
    start, _ = layer(x[:0])
    last = run_over(x, start)
    np.testing.assert_allclose(c[-1], last[0].c, rtol=1e-12)
    # of the upper layer, by the map of the gate over what it reads
    inputs, state = [], start
    for row in x:
        old, state = state, run_over(row[None], state)
        inputs.append((state[0].h, old[1].h))
    upper = layer.weights[1]
    z = [a @ upper.w_x[...] + h @ upper.w_h[...] + upper.b[...] for a, h in inputs]
    gate = sigmoid(np.array(z)[:, 2:4])
    np.testing.assert_allclose(upper_forget, gate, rtol=1e-12)
    np.testing.assert_allclose(upper_c[-1], last[1].c, rtol=1e-12)


def test_what_is_visible():
    text = 'A (b\n  c) "d" `e'
    seen = {k: v.astype(int).tolist() for k, v in gates.visible(text).items()}
    assert seen["place in the line"] == [1, 2, 3, 4, 0, *range(1, 12)]
    assert seen["place in the word"] == [1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert seen["indentation"] == [0] * 5 + [1] + [2] * 10
    assert seen["inside brackets"] == [0, 0, 1, 1, 1, 1, 1, 1] + [0] * 8
    assert seen['inside "quotes"'] == [0] * 10 + [1, 1, 0, 0, 0, 0]
    assert seen["inside `quotes`"] == [0] * 14 + [1, 1]
    assert seen["a capital"] == [1] + [0] * 15
    assert seen["after a line's end"] == [0] * 4 + [1] + [0] * 11


def test_a_unit_that_counts_is_found():
    rng = np.random.default_rng(0)
    text = "".join(rng.choice([*"ab \n("], 500))
    seen, c = gates.visible(text), rng.normal(size=(500, 6))
    c[:, 4] = -0.01 * seen["place in the line"]
    c[:, 2] = 0.5  # constant
    best = gates.telling(text, c)[0]
    assert best[:2] == ("place in the line", 4) and best.correlation < -0.999
    r = gates.correlations(seen["place in the line"], c)
    own = [np.corrcoef(seen["place in the line"], c[:, k])[0, 1] for k in (0, 1, 3)]
    np.testing.assert_allclose(r[[0, 1, 3]], own)
    assert r[2] == 0


def test_gates_command(tmp_path, capsys):
    made, out = tmp_path / "made", tmp_path / "gates"
    assert "no checkpoint there; experiments.language_model train makes one" in error(
        capsys, run("gates", out, "--run", made)
    )
    text = tmp_path / "text.txt"
    text.write_text("one (two)\nThree <four>\n" * 60)
    options = ["--data", text, "--hidden", 8, "--embedding", 4, "--batch", 2]
    options += ["--window", 8, "--steps", 2, "--length", 5]
    assert language_model(["train", "--out", str(made), *map(str, options)]) == 0
    capsys.readouterr()
    show = partial(run, "gates", out, "--run", made)
    assert show("--length", 40) == 0
    printed = capsys.readouterr().out
    best = re.search(r"^(.+): unit (\d), correlation", printed)
    page = (out / "report.html").read_text()
    assert best and f"Unit {best[2]}: {best[1]}" in page
    assert page.count("<pre") == 10 and "&lt;fo" in page
    letters = re.sub("<[^>]+>", "", re.findall("<pre.*?</pre>", page, re.S)[0])
    assert len(letters.replace("&lt;", "<").replace("&gt;", ">")) == 40
    assert show("--unit", 3, 5, "--layer", 1) == 0
    page = (out / "report.html").read_text()
    assert page.count("<pre") == 4 and "<h2>Unit 5</h2>" in page
    capsys.readouterr()
    assert "--unit 8: the model has 8" in error(capsys, show("--unit", 8))
    assert "--layer 2: the model has 1" in error(capsys, show("--layer", 2))
    strange = tmp_path / "strange.txt"
    strange.write_text("Ω")
    assert "'Ω' is not" in error(capsys, show("--input", strange))
    text.write_text("two (one)\nThree <four>\n" * 60)
    line = error(capsys, show())
    assert f"--run {made}: its text has changed; give one by --input" in line
    options = ["--input", strange, "--data-dir", tmp_path]
    assert "--data-dir: changes nothing with --input" in error(capsys, show(*options))


def test_presets():
    of = lambda task, cell: preset({"task": task, "cell": cell})
    assert preset({}) == of("adding", "lstm") == Settings()
    assert of("adding", "rnn").learning_rate == 1e-3
    assert of("adding", "indrnn") == Settings(cell="indrnn")
    assert of("copy", "gru").task == "copy"
