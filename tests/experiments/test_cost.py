"""What layers cost: measured once, counted by formula, told in tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxseq
from experiments.cost import measure, page
from experiments.cost.__main__ import main
from experiments.cost.settings import MODELS, Settings, cases, flops, kept, step_flops
from tests.experiments.helpers import error, refused

SMALL = """--lengths 4 --batches 1 --long 256 --hidden 8 --batch 2 --rounds 1
--most-mb 1""".split()


def run(out, *options):
    return main(["measure", "--out", str(out), *SMALL, *map(str, options)])


def test_measured_once_and_told(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert run(out) == 0
    printed = capsys.readouterr().out
    path = out / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["part"], r["model"], r["mode"], r["B"], r["T"]) for r in rows] == [
        *(("length", model, "forward", 2, 4) for model in MODELS),
        *(("length", model, "gradient", 2, 4) for model in MODELS),
        *(("tokens", model, "forward", 2, 4) for model in MODELS),
        *(("batch", model, "forward", 1, 4) for model in MODELS),
        *(("long", m, "gradient", 2, 256) for m in ("lstm", "lstm", "transformer")),
    ]
    *timed, plain, remat, large = rows
    assert all(row["median_ms"] > 0 and row["rounds"] == 1 for row in timed)
    assert (plain["remat"], remat["remat"]) == (None, 16)
    assert plain["temp_mb"] > 2 * remat["temp_mb"] > 0 and remat["median_ms"] > 0
    # the scores alone, of 4 heads
    assert large["temp_mb"] > 2 * 4 * 256**2 * 4 / 1e6 and large["median_ms"] is None
    weights = {row["model"]: row["weights"] for row in rows}
    assert weights["lstm"] == 4 * (8 * 8 + 8 * 8 + 8)
    # four maps and two, with biases, and three norms of two vectors
    assert weights["transformer"] == 4 * (64 + 8) + (128 + 16) + (128 + 8) + 3 * 16
    text = (out / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 3
    assert len([*out.glob("cost-[123]-*.png")]) == 3
    shown = page.number(remat["median_ms"], 3)
    assert f"| LSTM, remat | {shown} |" in printed and shown in text
    # rows that are there are kept, those that are not are measured
    asked = []

    def none(group, *options):
        asked.extend(group)
        return [{**row, "median_ms": 123.0} for row in rows if row["part"] == "batch"]

    monkeypatch.setattr(measure, "measure", none)
    before = path.read_text()
    assert run(out) == 0 and asked == [] and path.read_text() == before
    assert "19 of 19 rows are in" in capsys.readouterr().out
    path.write_text("".join(json.dumps(r) + "\n" for r in rows if r["part"] != "batch"))
    assert run(out) == 0
    assert {case.part for case in asked} == {"batch"} and len(asked) == 4
    again = path.read_text().splitlines()
    assert len(again) == 19 and "123.0" in again[-1]
    assert main(["report", "--results", str(path), "--out", str(tmp_path / "r")]) == 0
    assert "| RNN | 123 |" in capsys.readouterr().out
    # rows of other widths have tables of their own, and other shapes no place in them
    every = path.read_text().splitlines()
    narrow = [row.replace('"H": 8', '"H": 4') for row in every]
    path.write_text("\n".join([*every, *narrow]))
    assert main(["report", "--results", str(path), "--out", str(tmp_path / "w")]) == 0
    assert capsys.readouterr().out.count("| RNN | 123 |") == 2
    assert len([*(tmp_path / "w").glob("cost-[123]-*.png")]) == 6
    path.write_text("\n".join([*every, every[0].replace('"B": 2', '"B": 3')]))
    line = error(capsys, main(["report", "--results", str(path), "--out", str(out)]))
    assert "rows of several --batch" in line
    path.write_text('{"part": "long"}\n')
    assert "results.jsonl, line 1: not a result" in error(capsys, run(out))


@pytest.mark.parametrize("model", MODELS)
def test_operations_are_those_that_are_done(model):
    """XLA's count of one step, or of a layer with no loop, has little more."""
    B, T, H = 2, 256, 64
    x = jnp.zeros((B, H) if model != "transformer" else (B, T, H))
    params, _ = measure.layer(cases(Settings())[MODELS.index(model)]._replace(H=H))
    if model == "transformer":
        counted, done = measure.transformer, T
    else:
        step = getattr(jaxseq, f"{model}_step")
        state = getattr(jaxseq, f"{model}_zeros")(params, (B,))
        counted, done = lambda params, x: step(params, state, x), 1
    found = jax.jit(counted).lower(params, x).cost_analysis()["flops"]
    expected = B * done * step_flops(model, T, H)
    assert expected <= found < 1.15 * expected


def test_cases_and_their_operations():
    settings = Settings(lengths=(8, 2, 4), batches=(3,), long=(64,), batch=5, hidden=8)
    found = cases(settings)
    assert len(found) == len(set(found)) == 3 * 4 * 2 + 3 * 4 + 4 + 3
    tokens = {case.B * case.T for case in found if case.part == "tokens"}
    assert tokens == {40}
    assert {(case.B, case.T) for case in found if case.part == "batch"} == {(3, 4)}
    plain, remat, other = found[-3:]
    assert (remat.remat, other.model) == (8, "transformer")
    assert flops(plain) == 3 * 5 * 64 * 2 * 16 * 32
    assert flops(remat) * 3 == flops(plain) * 4
    assert [kept(T) for T in (1, 64, 128, 16384)] == [1, 8, 16, 128]


def test_the_transformer_reads_vectors():
    """It equals the public encoder over tokens whose embeddings they are."""
    params = jaxseq.transformer_init(
        jax.random.key(0), features=8, num_heads=4, ff_features=16, source_vocab=11,
        num_encoder_layers=1,
    )  # fmt: skip
    tokens = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    found = measure.transformer(params, params.encoder.embed[tokens])
    want = jaxseq.transformer_encode(params, tokens).values
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


def test_tables():
    row = lambda model, T, ms, remat=None: {
        "model": model, "T": T, "B": 2, "median_ms": ms, "remat": remat, "gflop": 6e-3,
    }  # fmt: skip
    rows = [row("lstm", 2000, 1234.5), row("lstm", 8, 0.012345),
            row("lstm", 8, 5.0, 4), row("rnn", 8, None)]  # fmt: skip
    head, lines = page.cross(rows, "T", page.milliseconds)
    assert head == ["layer", "T = 8", "T = 2,000"]
    assert lines == [
        ["RNN", "", ""], ["LSTM", "0.0123", "1,230"], ["LSTM, remat", "5", ""]
    ]  # fmt: skip
    assert page.per_step_us(rows[0]) == pytest.approx(617.25)
    assert page.per_sequence_ms(rows[0]) == pytest.approx(617.25)
    assert page.step_mflop(rows[0]) == pytest.approx(6 / 4000)
    assert page.per_step_us(rows[3]) is None
    figure = page.pair((rows, "T", page.milliseconds, "a"),
                         (rows[:1], "T", page.per_step_us, "b"))  # fmt: skip
    left, right = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert drawn == {"LSTM": [[8, 0.012345], [2000, 1234.5]], "LSTM, remat": [[8, 5]]}
    assert len(right.lines) == 1


def test_bad_options(tmp_path, capsys):
    line = error(capsys, run(tmp_path / "out", "--hidden", 10))
    assert "--hidden 10: not a multiple of 4" in line
    assert not (tmp_path / "out").exists()
    assert "--lengths" in refused(capsys, main, "measure", "--lengths", 4, 0)
    assert "--results" in refused(capsys, main, "report")
    none = ["report", "--results", str(tmp_path / "none.jsonl")]
    assert "none.jsonl: No such file" in error(capsys, main(none))
    (tmp_path / "none.jsonl").write_text("")
    assert "none.jsonl: no rows" in error(capsys, main(none))
