"""The benchmark of the native engine: who is measured, and what the page says."""

import json

import pytest

import jaxseq
from benchmarks.__main__ import main
from benchmarks.cases import Case
from benchmarks.native import peak, problems
from benchmarks.native.cases import PARTS, cases
from benchmarks.native.measure import gflop
from benchmarks.native.report import END, START
from jaxseq._kernels.cpu import compilers
from tests.tools.commands import one_line

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_cases():
    every = cases()
    assert len(every) == len(set(every)) and {part for part, _ in every} == {*PARTS}
    assert cases(["step"]) == [
        ("step", Case(op, "step", 1, 1, 128, 128)) for op in ("rnn", "lstm", "gru")
    ]
    assert gflop(Case("peephole LSTM", "forward", 1, 1, 2, 4)) == pytest.approx(192e-9)
    assert gflop(Case("projected LSTM", "forward", 1, 1, 2, 4)) is None


def test_the_switch_is_put_back(monkeypatch):
    monkeypatch.setenv(problems.SWITCH, "1")
    with pytest.raises(RuntimeError), problems.turned_off():
        assert problems.os.environ[problems.SWITCH] == "0"
        raise RuntimeError
    assert problems.os.environ[problems.SWITCH] == "1"


@pytest.mark.skipif(compilers.compiler() is None, reason="no compiler")
def test_peak():
    found = peak.peaks([1, 2], seconds=0.01)
    assert [*found] == ["1", "2"] and min(found.values()) > 0


def test_no_engine_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(jaxseq, "native_available", lambda: False)
    code = main(["native", "--results", str(tmp_path)])
    assert "no native engine" in one_line(capsys, code)


def test_a_run_of_one_cell_and_its_page(tmp_path, capsys):
    if not jaxseq.native_available():
        pytest.skip("no native engine")
    asked = ["--parts", "cells", "--shapes", "2,3,4,8", "--modes", "forward"]
    asked += ["--rounds", "0", "--results", str(tmp_path)]
    assert main(["native", *asked]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["contender"] for row in rows} == {"native", "chunks", "scan"}
    assert all(row["reason"] is None for row in rows)
    assert main(["native", *asked, "--resume"]) == 0  # which has nothing left to do
    assert len(path.read_text().splitlines()) == len(rows)
    # as if it had been timed
    times = {"native": 2.0, "chunks": 3.0, "scan": 5.0}
    for row in rows:
        row |= {"median_ms": times[row["contender"]], "iqr_ms": 0.1, "cores": 2}
        row |= {"compile_ms": 10.0, "peaks": {"1": 10.0, "2": 20.0}}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{START}\n{END}\n")
    report = ["native", "--report", "--results", str(tmp_path), "--page", str(page)]
    assert main(report) == 0
    text = page.read_text()
    assert "| peephole LSTM | cells, forward | 1.50 (1.50 to 1.50)" in text
    assert "| peephole LSTM | forward | 2,3,4,8 | 2 |" in text
    assert (tmp_path / "native.png").exists()
    capsys.readouterr()
