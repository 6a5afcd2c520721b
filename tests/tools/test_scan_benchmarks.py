"""`python -m benchmarks scan`: wrong results are not timed, rows and tables are."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxseq
from benchmarks import timing
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.contender import Contender
from benchmarks.rows import append, case_of, newest_run
from benchmarks.scan import report, run
from benchmarks.scan.bodies import MAKERS
from benchmarks.scan.body import Body
from benchmarks.scan.cases import AGAIN, BODIES, OURS, PLAIN, cases
from benchmarks.scan.measure import exact, measure
from tests.tools.commands import idle, one_line

pytestmark = pytest.mark.usefixtures("as_users_have_it")
CPU = jax.devices("cpu")[0]
SHAPE = (3, 5, 8, 16)


@pytest.mark.every(4)
@pytest.mark.parametrize("body", BODIES)
def test_bodies_agree_in_float64(body):
    assert set(MAKERS) == set(BODIES)
    assert exact(body) is None


def off_by(scale):
    """A scan whose gradient by the first state is wrong, and nothing else."""

    def scan(body, init, xs):
        wrong = lambda a: lax.stop_gradient(a) * (1 - scale) + a * scale
        return lax.scan(body, jax.tree.map(wrong, init), xs)

    return scan


def test_wrong_gradients_are_not_timed(monkeypatch):
    monkeypatch.setattr(jaxseq, "scan", off_by(1 - 1e-3))
    case = Case("nnx GRUCell", "gradient", *SHAPE)
    rows = {row["contender"]: row for row in measure(case, CPU, 1)}
    assert list(rows) == [PLAIN, OURS, "jaxseq.gru", AGAIN]
    assert "other numbers: 1/1 is off by 1.0e-03" in rows[OURS]["reason"]
    assert rows[OURS]["median_ms"] is None and rows[PLAIN]["median_ms"] > 0
    monkeypatch.setattr(jaxseq, "scan", off_by(1 - 1e-9))
    why = exact("nnx GRUCell")
    assert why.startswith(
        "jaxseq.scan in float64: other numbers: 1/1 is off by 1.0e-09"
    )
    rows = measure(case, CPU, 1, why)
    assert {row["reason"] for row in rows} == {why}
    assert {row["median_ms"] for row in rows} == {None}


def test_a_scan_that_fails_does_not_end_the_run(monkeypatch):
    def fails(*_):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(jaxseq, "scan", fails)
    assert exact("sLSTM") == "jaxseq.scan in float64: RuntimeError: no such thing"
    rows = measure(Case("sLSTM", "forward", *SHAPE), CPU, 0)
    assert [row["reason"] for row in rows] == [None, "RuntimeError: no such thing"]


@pytest.mark.parametrize("mode", ["gradient", "forward"])
def test_the_same_program_is_known_as_such(mode, monkeypatch):
    case = Case("Haiku LSTM", mode, *SHAPE)
    other = lambda body, init, xs: lax.scan(body, init, xs, unroll=2)
    for scan, same in ((lax.scan, True), (other, False)):
        monkeypatch.setattr(jaxseq, "scan", scan)
        assert {row["same"] for row in measure(case, CPU, 0)} == {same}


def test_a_body_left_to_lax_scan_is_the_same_program(monkeypatch):
    body = lambda w: lambda s, x: (s + (w * x).sum(), x)
    sums = lambda *_: Body(body, jnp.ones(8), jnp.float32(0))
    monkeypatch.setitem(MAKERS, "sLSTM", sums)
    rows = measure(Case("sLSTM", "forward", *SHAPE), CPU, 0)
    assert {row["same"] for row in rows} == {True}


def test_slow_calls_have_fewer_rounds(monkeypatch):
    contenders = dict.fromkeys((PLAIN, OURS), Contender(lambda: None, dict))
    times = iter([1000.0, 100.0, 10.0, 20.0])
    monkeypatch.setattr(timing, "sample", lambda *_: next(times))
    turn = 2 * 1.0 + 6 * 0.01 + 2 * 0.05
    calls, rounds = timing.fitting(contenders, 100)
    assert calls == {PLAIN: 1, OURS: 5}
    assert rounds == int(timing.TURNS_S / turn)


def test_a_run_goes_on_and_is_reported(tmp_path, capsys, monkeypatch):
    idle(monkeypatch)
    bodies = ["ScannedRNN", "block GRU"]
    args = ["scan", "--bodies", ",".join(bodies), "--shapes", "3,5,8,16", "2,4,8,8"]
    args += ["--modes", "forward", "--rounds", "2", "--results", str(tmp_path)]
    monkeypatch.setattr(run, "exact", lambda _: None)  # tested above

    def stops(case, *how):
        if case.op == "block GRU":
            raise KeyboardInterrupt
        return measure(case, *how)

    monkeypatch.setattr(run, "measure", stops)
    assert main(args) == 130
    assert "stopped" in capsys.readouterr().err
    (path,) = tmp_path.glob("*.jsonl")
    before = path.read_text()
    first = newest_run(path)
    assert [row["contender"] for row in first] == [PLAIN, OURS, "jaxseq.gru", AGAIN]
    for row in first:
        assert row["median_ms"] > 0 and row["compile_ms"] > 0 and row["temp_mb"] > 0
        assert row["max_err"] < 1e-5 and row["rounds"] == 2 and row["device"]
        assert {"jax", "jaxseq", "flax"} == set(row["versions"])
    monkeypatch.setattr(run, "measure", measure)
    assert main([*args, "--resume"]) == 0
    assert path.read_text().startswith(before)
    rows = newest_run(path)
    every = cases(bodies, [(3, 5, 8, 16), (2, 4, 8, 8)], ["forward"])
    assert list(dict.fromkeys(map(case_of, rows))) == every
    page = tmp_path / "page.md"
    wanted = ["scan", "--report", "--results", str(tmp_path), "--page", str(page)]
    assert "does not exist" in one_line(capsys, main(wanted))
    page.write_text(f"before\n{report.START}\nstale\n{report.END}\nafter\n")
    assert main(wanted) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "stale" not in text and "2 rounds" in text
    for line in ("block GRU", "ScannedRNN: jaxseq.gru", "lax.scan against itself"):
        assert f"\n| {line} | " in text


def made(case, contender, ms, **more):
    row = {"contender": contender, **case._asdict(), "median_ms": ms}
    row |= {"reason": None if ms else "other numbers: y is off by 3", "rounds": 7}
    row |= {"compile_ms": 10 * (ms or 1), "temp_mb": 3 * (ms or 1), "same": False}
    return row | {"versions": {"jax": "1"}, "commit": "c0ffee"} | more


def test_tables(tmp_path, capsys):
    stamp = {"run": "1", "device": "cpu-new"}
    one, other = (Case("sLSTM", mode, *SHAPE) for mode in ("gradient", "forward"))
    wrong = one._replace(op="Haiku GRU")
    rows = [made(one, PLAIN, 3.0), made(one, OURS, 2.0), made(one, AGAIN, 4.0)]
    rows += [made(other, n, ms, same=True) for n, ms in ((PLAIN, 3.0), (OURS, 2.0))]
    rows += [made(wrong, PLAIN, 3.0), made(wrong, OURS, None)]
    append(tmp_path / "cpu-new.jsonl", rows, **stamp)
    page = tmp_path / "page.md"
    page.write_text(f"{report.START}\n{report.END}\n")
    args = ["scan", "--report", "--results", str(tmp_path), "--page", str(page)]
    assert main(args) == 0
    text = page.read_text()
    assert text.count(capsys.readouterr().out.strip()) == 1
    assert "| sLSTM | 1.50 | 1.50 (1.50 to 1.50) |" in text
    assert "| sLSTM | same | 1.00 (1.00 to 1.00) |" in text  # counted as 1
    assert "| Haiku GRU | – | – |" in text
    assert "| lax.scan against itself | 0.75 (0.75 to 0.75) |" in text
    assert "| sLSTM | 1.50 | 1.00 | 1.50 | 1.00 |" in text
    assert "- jaxseq.scan: other numbers: y (Haiku GRU gradient)" in text
    assert main([*args[:2], "--results", str(tmp_path / "none")]) == 2
    assert "no rows" in capsys.readouterr().err
