"""The benchmarks turn wrong contenders away, fail clearly, report what they write."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import rnn as cudnn_rnn

from benchmarks import __main__ as command
from benchmarks import measure as measuring
from benchmarks import report, timing
from benchmarks.__main__ import main
from benchmarks.cases import MODES, SETS, Case, flops
from benchmarks.contender import Contender, prepare_layer
from benchmarks.contenders import CONTENDERS, cudnn, load, usual
from benchmarks.contenders import jaxseq as ours
from benchmarks.contenders import torch as theirs
from benchmarks.device import code as code_of
from benchmarks.measure import measure
from benchmarks.problem import draw, permute
from benchmarks.progress import Progress, minutes
from benchmarks.right import expected, worst
from benchmarks.rows import (
    AGAIN,
    append,
    begin,
    case_of,
    groups,
    newest,
    newest_run,
    ratio,
    read,
)
from tests.tools.commands import idle, one_line

ROOT = Path(__file__).parents[2]
CPU = jax.devices("cpu")[0]


pytestmark = pytest.mark.usefixtures("as_users_have_it")


def swapped_gates(calls):
    """jaxseq with r and z of the gru exchanged, that counts its calls."""

    def prepare(problem, device, repeats):
        (w,) = problem.weights
        turned = w._replace(w_x=permute(w.w_x, (1, 0, 2)), b=permute(w.b, (1, 0, 2)))
        found = ours.layer(problem._replace(weights=(turned,)))
        ready = prepare_layer(found, problem, device, repeats)
        return ready._replace(launch=lambda: calls.append(0) or ready.launch())

    return prepare


def wrong_gradient(problem, device, repeats):
    """jaxseq with a gradient of b that is a little wrong, and the right output."""
    layer = ours.layer(problem)
    wrong = lambda g: {**g[0]._asdict(), "b": np.asarray(g[0].b) * 1.01}
    return prepare_layer(layer._replace(restore=wrong), problem, device, repeats)


def broken(problem, device, repeats):
    raise RuntimeError("a library\nthat fails")


@pytest.mark.parametrize("mode", ["forward", "gradient"])
def test_wrong_contender_is_not_timed(mode, monkeypatch):
    monkeypatch.setattr(measuring, "product_gflops", lambda *_: 99.0)
    calls = []
    contenders = {
        "jaxseq": load("jaxseq", "cpu"),
        "flax": swapped_gates(calls),
        "keras": wrong_gradient,
        "haiku": broken,
    }
    rows = measure(Case("gru", mode, 3, 5, 4, 6), contenders, CPU, 1, 1)
    by_name = {row["contender"]: row for row in rows}
    assert list(by_name) == ["jaxseq", "flax", "keras", "haiku", AGAIN]
    timed = {name for name, row in by_name.items() if row["median_ms"] is not None}
    assert timed == {"jaxseq", AGAIN} | ({"keras"} if mode == "forward" else set())
    assert all((row["reason"] is None) == (n in timed) for n, row in by_name.items())
    assert "off by" in by_name["flax"]["reason"] and calls == []
    assert by_name["flax"]["max_err"] > 1e-2 and by_name["jaxseq"]["max_err"] < 1e-5
    if mode == "gradient":
        assert by_name["keras"]["reason"].startswith(
            "other numbers: b is off by 1.0e-02"
        )
    assert by_name["haiku"]["reason"] == "RuntimeError: a library that fails"


ELMAN = {"equinox": "no cell", "haiku": "other numbers"}
NO_MASK = {"equinox": "no lengths", "haiku": "no lengths"}
SHAPE, ONE = (3, 5, 4, 6), (1, 4, 6, 6)
KINDS = [
    (Case("lstm", "forward", *SHAPE), {}),
    (Case("lstm", "gradient", *SHAPE), {}),
    (Case("gru", "gradient", *SHAPE), {"haiku": "other numbers"}),
    (Case("rnn", "gradient", *SHAPE), ELMAN),
    (Case("lstm", "gradient", *SHAPE, "bfloat16"), {}),
    (Case("lstm", "gradient", *SHAPE, ragged=True), NO_MASK),
    (Case("gru", "gradient", *SHAPE, resets=True), {}),
    (Case("lstm", "gradient", *SHAPE, resets=True), {}),
    (Case("rnn", "forward", *SHAPE, resets=True), {}),
    (Case("lstm", "gradient", *SHAPE, layers=2, bidirectional=True), {}),
    (Case("lstm", "eager", *SHAPE, ragged=True), NO_MASK),
    (Case("lstm", "eager gradient", *SHAPE), {}),
    (Case("lstm", "stream", *ONE), {"keras": "no single step"}),
    (Case("gru", "eager stream", *ONE), {"haiku": "other", "keras": "no single step"}),
    (Case("gru", "decode", 3, *ONE[1:]), {}),
]


@pytest.mark.every(3)
@pytest.mark.parametrize("case, refused", KINDS, ids=lambda value: str(value)[:50])
def test_every_contender_is_right(case, refused):
    """All weight layouts are; what a library does otherwise or not has its reason."""
    contenders = {name: load(name, "cpu") for name in usual(case, "cpu")}
    rows = measure(case, contenders, CPU, rounds=0, repeats=0)
    reasons = {r["contender"]: r["reason"] for r in rows if r["reason"] is not None}
    assert set(reasons) == set(refused)
    assert all(reasons[name].startswith(refused[name]) for name in refused)
    assert len(rows) == len(contenders) > 1
    times = ("median_ms", "compile_ms", "first_ms", "second_ms")
    assert all(row[name] is None for row in rows for name in times)


def test_cudnn_is_given_the_right_weights():
    """By the reference that JAX has of it, for there is no GPU here."""
    unpack = cudnn_rnn.unpack_lstm_weights

    def lstm(x, h, c, flat, lengths, D, H, layers, dropout, bidirectional):
        weights = unpack(flat, D, H, layers, bidirectional)
        how = (lengths, D, H, layers, dropout, bidirectional)
        return cudnn_rnn.lstm_ref(x, h, c, *weights, *how)

    problem = draw(Case("lstm", "gradient", *SHAPE))
    layer = cudnn.layer(problem, lstm)
    results = prepare_layer(layer, problem, CPU, 1).results()
    assert worst(results, expected(problem, CPU), problem)[1] < 1e-6


def test_what_is_right_is_held_to_the_equations(monkeypatch):
    problem = draw(Case("gru", "gradient", *SHAPE, resets=True))
    wrong = lambda problem, implementation: ours.layer(problem._replace(resets=None))
    monkeypatch.setattr("benchmarks.right.layer", wrong)
    unmasked = problem._replace(resets=np.zeros_like(problem.resets))
    expected(unmasked, CPU)
    resets = np.zeros_like(problem.resets)
    resets[:, 2] = True
    apply = lambda layer: lambda w, x, lengths, resets: layer.apply(w, x, lengths, None)
    deaf = lambda p, _: (found := ours.layer(p))._replace(apply=apply(found))
    monkeypatch.setattr("benchmarks.right.layer", deaf)
    with pytest.raises(ArithmeticError, match="float64 is off its equations"):
        expected(problem._replace(resets=resets), CPU)


def test_operations_count_every_weight_once_a_step():
    for case in SETS["tiny"]:
        if case.mode == "forward":
            weights = sum(w.w_x.size + w.w_h.size for w in draw(case).weights)
            assert flops(case) == 2 * case.B * case.T * weights
            assert flops(case._replace(mode="gradient")) == 3 * flops(case)


def test_sets_name_each_case_once():
    for cases in SETS.values():
        assert len({*cases}) == len(cases) > 0
    assert {case.mode for case in SETS["default"]} == {*MODES}
    assert {*SETS["default"]} <= {*SETS["full"]}
    assert set(command.CONTENDERS) == set(CONTENDERS)


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.log.append("pause")
        self.now += seconds

    def contender(self, name, *seconds, **how):
        """Takes each of `seconds` once, and the last of them from then on."""
        left = [*seconds]

        def launch():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        wait = lambda _: self.log.append(f"wait {name}")
        return Contender(launch, dict, wait, **how)


def test_turns(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    # the second call hiccups, and must not decide how many make a sample
    pair = {
        "a": clock.contender("a", 1 / 64, 1.0, 1 / 64),
        "b": clock.contender("b", 1 / 32),
    }
    ticks = []
    times = timing.take_turns(pair, 4, tick=lambda: ticks.append(clock.log.copy()))
    assert times["a"] == pytest.approx([1e3 / 64] * 4)
    assert times["b"] == pytest.approx([1e3 / 32] * 4)
    assert len(ticks) == 4
    # one that is not timed, and as many as take 50 ms
    of_a = ["a", "wait a"] * (1 + 4) + ["pause"]
    of_b = ["b", "wait b"] * (1 + 2) + ["pause"]
    first = ticks[1][len(ticks[0]) :]
    assert first in (of_a + of_b, of_b + of_a)
    # an accelerator is given the next call before it has ended this one
    clock.log.clear()
    timing.sample(pair["a"], 3, ahead=True)
    assert clock.log == ["a", "a", "a", "wait a"]


def test_torch_runs_with_the_better_number_of_threads(monkeypatch):
    contender = Contender(lambda: theirs.torch.get_num_threads(), dict)
    monkeypatch.setattr(theirs, "cores", lambda: 2)
    for better, times in (
        (1, {"1": [2, 2, 9], "2": [3] * 3}),
        (2, {"1": [3], "2": [1]}),
    ):
        monkeypatch.setattr(theirs, "take_turns", lambda *_, t=times, **__: t)
        found = theirs.at_the_better_threads(contender, 3)
        assert found.threads == found.launch() == better
        assert found.pause > contender.pause
    # with no tries, as its users have it
    assert theirs.at_the_better_threads(contender, 0).threads == 2
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize(
    "args, named",
    [
        (["run", "--device", "tpu"], "platform tpu is absent"),
        (["run", "--ops", "lstm,mgu"], "--ops"),
        (["run", "--shapes", "1,2,3"], "--shapes"),
        (["run", "--rounds", "-1"], "--rounds"),
        (["run", "--cases", "exact", "--modes", "eager"], "has none of"),
        (["profile", "--contenders", "torch"], "PyTorch has none"),
        (["profile", "--calls", "0"], "--calls"),
        (["scan", "--bodies", "nnx GRUCell,mgu"], "--bodies"),
        (["scan", "--shapes", "3,6,8,16", "3,6,8"], "--shapes"),
        (["scan", "--shapes", "3,6,8,12"], "a multiple of 8, got 12"),
        (["scan", "--device", "tpu"], "platform tpu is absent"),
        (["profile", "--modes", "eager"], "--modes forward,gradient"),
        (["measure"], "measure"),
        ([], "command"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line(args, named, tmp_path, capsys, monkeypatch):
    idle(monkeypatch)
    results = ["--results", str(tmp_path)] if "--device" in args else []
    assert named in one_line(capsys, main([*args, *results]))
    assert not any(tmp_path.iterdir())


def test_a_busy_machine_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measuring, "measure", lambda *_: [])
    idle(monkeypatch, load=40.0)
    args = ["run", "--cases", "tiny", "--results", str(tmp_path)]
    line = one_line(capsys, main(args))
    assert "busy" in line and "40.0" in line and "--max-load" in line
    assert not any(tmp_path.iterdir())
    assert main([*args, "--max-load", "50"]) == 0
    assert main([*args, "--rounds", "0"]) == 0  # nothing is timed
    assert "min" in capsys.readouterr().out


def test_wrong_numbers_of_jaxseq_are_exit_code_1(tmp_path, monkeypatch):
    names = ["jaxseq", "jaxseq scan", "flax"]
    few = ["--cases", "tiny", "--ops", "gru", "--modes", "forward", "--rounds", "0"]
    few += ["--contenders", ",".join(names), "--results", str(tmp_path)]
    for wrong, code in ((None, 0), ("flax", 0), ("jaxseq", 1), ("jaxseq scan", 1)):
        rows = lambda case, *_, w=wrong: [
            made(case, name, None if name == w else 1.0) for name in names
        ]
        monkeypatch.setattr(measuring, "measure", rows)
        assert main(["run", *few]) == code


def test_a_kernel_that_does_not_compile_is_exit_code_1(monkeypatch, capsys):
    for name in ("ACCELERATOR_TYPE", "WORKER_HOSTNAMES", "SKIP_MDS_QUERY"):
        monkeypatch.setenv(f"TPU_{name}", "1")  # else set for good by the import
    from benchmarks import tpu_compile

    case = tpu_compile.Case("v5e", "lstm", 128, "forward")._asdict()
    of = lambda result: {**case, "result": result, "reason": "why"}
    monkeypatch.setattr(tpu_compile, "find_spec", lambda _: True)
    monkeypatch.setattr(tpu_compile, "version", lambda _: "1")
    for results, code in ((["limit", "fails"], 1), (["limit"], 0)):
        rows = [of(result) for result in results]
        monkeypatch.setattr(tpu_compile, "rows", lambda _, r=rows: iter(r))
        assert main(["compile-tpu"]) == code
        assert capsys.readouterr().out.count(": why") == len(results)


def test_minutes_left_are_told_by_the_clock(monkeypatch):
    clock = types.SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr("benchmarks.progress.time", clock)
    progress = Progress([10.0, 30.0, 20.0])
    assert progress.left(0) == 60
    clock.now = 20.0  # twice what was guessed
    assert progress.left(1) == 100
    clock.now = 40.0
    assert progress.left(2) == 20
    assert [minutes(s) for s in (12.4, 120)] == ["12 s", "2 min"]


def test_a_run_goes_on_and_loses_nothing(tmp_path, capsys, monkeypatch):
    idle(monkeypatch)
    few = ["--cases", "tiny", "--ops", "lstm", "--contenders", "jaxseq,flax"]
    few += ["--shapes", "3,5,4,6", "--no-compile-times", "--results", str(tmp_path)]
    forward = [*few, "--modes", "forward", "--rounds", "2"]
    cases = [c for c in SETS["tiny"] if c.op == "lstm" and c.mode == "forward"][1:]

    def only(case, *args, rows=measure):
        if case.resets:
            raise KeyboardInterrupt
        return rows(case, *args) if case.variant == "" else [made(case, "jaxseq", 1.0)]

    monkeypatch.setattr(measuring, "measure", only)
    assert main(["run", *forward]) == 130
    assert "go on with --resume" in capsys.readouterr().err
    (path,) = tmp_path.glob("*.jsonl")
    before = path.read_text()
    rows = newest_run(path)
    first = [row for row in rows if case_of(row) == cases[0]]
    assert [row["contender"] for row in first] == ["jaxseq", "flax", AGAIN]
    for row in first:
        assert row["rounds"] == 2 and row["load"] == 0.1 and row["threads"] >= 1
        assert row["max_err"] < 1e-5 and 0 <= row["matmul_drop"] < 1
        assert row["floor_ms"] < row["median_ms"] and row["device"] == path.stem
        assert {"commit", "time", "run", "versions", "iqr_ms", "temp_mb"} <= row.keys()
    left = [c for c in cases if c.resets or c.layers > 1 or c.bidirectional]
    monkeypatch.setattr(measuring, "measure", lambda c, *_: [made(c, "jaxseq", 1.0)])
    assert main(["run", *forward, "--resume"]) == 0
    assert path.read_text().startswith(before)
    rows = newest_run(path)
    assert {*map(case_of, rows)} == {*cases}
    assert [case_of(row) for row in rows[-len(left) :]] == left
    # of a library that is another all is measured, as a new run
    monkeypatch.setattr("benchmarks.device.code", lambda: "another")
    assert main(["run", *forward, "--resume"]) == 0
    assert len(read(path)) == len(rows) + len(cases)
    assert {*map(case_of, newest_run(path))} == {*cases}


def test_what_a_run_goes_on_from(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    one, other = (Case("lstm", mode, *SHAPE) for mode in ("forward", "gradient"))
    monkeypatch.setattr("benchmarks.device.code", lambda: "old")
    stamp, done = begin(path, CPU, True)
    assert stamp["code"] == "old" and not done
    both = [made(one, "jaxseq", 1.0), made(other, "jaxseq", 1.0)]
    append(path, both, **stamp | {"run": "1"})
    stamp, done = begin(path, CPU, True)
    assert stamp["run"] == "1" and done == {one, other}
    assert begin(path, CPU, False)[1] == set()
    monkeypatch.setattr("benchmarks.device.code", lambda: "new")
    stamp, done = begin(path, CPU, True)
    assert stamp["run"] != "1" and not done
    append(path, [both[0] | {"rounds": 0}], **stamp | {"run": "2"})
    assert begin(path, CPU, True)[1] == {one}
    assert begin(path, CPU, True, timed=True)[1] == set()
    assert [row["run"] for row in newest(path, timed=True)] == ["1", "1"]
    monkeypatch.setattr("benchmarks.device.code", lambda: "old")
    stamp, done = begin(path, CPU, True)  # newer rows of one case are of other code
    assert stamp["run"] not in ("1", "2") and done == {other}


def test_the_code_is_known_by_its_text(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    found = [code_of(tmp_path)]
    for name in ("a.py", "inside/b.cc", "c.h", "a.py"):
        path = tmp_path / name
        path.write_text(path.read_text() + "x" if path.exists() else name)
        found.append(code_of(tmp_path))
    assert len({*found}) == 5
    (tmp_path / "page.md").write_text("x")
    assert code_of(tmp_path) == found[-1]


def made(case, contender, ms, **more):
    row = {"contender": contender, **case._asdict(), "median_ms": ms}
    row |= {"iqr_ms": ms and ms / 9}
    row |= {"reason": None if ms else "other numbers: y is off by 3", "rounds": 9}
    row |= {"temp_mb": 2 * (ms or 1), "compile_ms": 100 * (ms or 1), "floor_ms": 0.5}
    row |= {"matmul_gflops": 99.0, "versions": {"jax": "1"}, "max_err": 1e-7}
    return row | more


def test_newest_rows(tmp_path):
    """A run of some cases leaves the others as they are."""
    path = tmp_path / "rows.jsonl"
    one, other = (Case("lstm", mode, *SHAPE) for mode in ("eager", "forward"))
    append(path, [made(one, "jaxseq", 1.0), made(other, "jaxseq", 2.0)], run="1")
    append(path, [made(one, "jaxseq", 3.0)], run="2")
    assert [row["median_ms"] for row in newest(path)] == [2.0, 3.0]
    assert [row["median_ms"] for row in newest_run(path)] == [3.0]


def test_rows_and_report(tmp_path, capsys):
    plain, gradient = Case("lstm", "forward", *SHAPE), Case("gru", "gradient", *SHAPE)
    eager = Case("lstm", "eager", *SHAPE)
    stamp = {"device": "cpu-new", "commit": "c0ffee"}
    times = [
        ("jaxseq", 2.0),
        ("torch", 3.0),
        ("flax", 1.0),
        (AGAIN, 2.1),
        ("keras", None),
    ]
    new = [
        made(case, name, ms, load=0.2, threads=1, first_ms=7.0, second_ms=6.0)
        for case in (plain, gradient, eager, plain._replace(ragged=True))
        for name, ms in times
    ]
    path = tmp_path / "cpu-new.jsonl"
    append(path, [{**row, "median_ms": 77.0} for row in new], run="1", **stamp)
    append(path, new, run="2", **stamp)
    old = [made(plain, "jaxseq", 4.0), made(plain, "torch", 2.0)]
    fields = ("ragged", "resets", "layers", "bidirectional")  # what old rows lack
    old = [{k: v for k, v in row.items() if k not in fields} for row in old]
    append(tmp_path / "cpu-old.jsonl", old, run="1", **{**stamp, "device": "cpu-old"})
    rows = newest_run(path)
    assert len(rows) == 20 and {case_of(row) for row in rows} >= {plain, eager}
    assert ratio(groups(rows)[0], "torch") == 1.5
    assert ratio(groups(rows)[0], "keras") is None

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.START}\nstale\n{report.END}\nafter\n")
    profiled = {"contender": "jaxseq", **plain._asdict(), "kernels_per_step": 3.0}
    names = ("per_step", "product", "arithmetic", "copy", "none")
    profiled |= {f"us_{name}": 1.25 for name in names}
    before = profiled | {"us_per_step": 88.0}
    for row, run in ((before, "1"), (profiled, "2")):
        append(tmp_path / "profile" / "cpu-new.jsonl", [row], run=run, commit="c0ffee")
    args = ["--results", str(tmp_path), "--readme", str(readme)]
    assert main(["report", *args]) == 0
    text, short = readme.read_text(), capsys.readouterr().out
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "stale" not in text
    for page in (text, short):
        # every machine, and which of them was unkind to PyTorch
        assert (
            page.index("cpu-new") < page.index("cpu-old") < page.index("told to sleep")
        )
        assert page.count("told to sleep") == 1
        assert "| torch | forward | – | 1.50 (1.50 to 1.50) | – |" in page
        assert "| torch | forward | – | 0.50 (0.50 to 0.50) | – |" in page
    assert f"({report.FIGURE})" in text
    assert "77" not in text and "88" not in text  # of older runs
    assert "### Where the time goes: cpu-new, commit c0ffee" in text
    assert "over 1 shape:" in text and "; 1 shape." in short
    assert (
        "| lstm | forward | 3,5,4,6 | 0.5 | 2 | 0.222 | 0.50 | – | 1.50 | 1.05 |"
        in text
    )
    assert "| lstm | forward, ragged | 3,5,4,6 |" in text
    assert "| lstm | forward | 3,5,4,6 | torch | 7 | 6 | 3 |" in text
    assert "| gru | gradient | 200 | 100 | 100 | 300 |" in text
    assert "| 3,5,4,6 | jaxseq | 1.2 | 3.0 |" in text
    assert "- keras: other numbers: y (lstm forward; gru gradient; lstm eager;" in text
    for name in (report.FIGURE, report.SUMMARY):
        assert (tmp_path / name).stat().st_size > 10_000
    # a page without its marks, and a line that is no row, are left as they are
    readme.write_text("no marks")
    assert "needs one line" in one_line(capsys, main(["report", *args]))
    assert readme.read_text() == "no marks"
    with path.open("a") as file:
        file.write("{")
    assert "line 41: not a row" in one_line(capsys, main(["report", *args]))


def test_dry_run_of_the_gpu_check(tmp_path):
    args = ["check-gpu", "--dry-run", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    log = (tmp_path / "check-gpu.log").read_text()
    assert done.returncode == 0, done.stderr
    for part in ("exact", "table", "tests"):
        assert f"{part}: done" in done.stdout, log
    (exact,) = (tmp_path / "exact").glob("*.jsonl")
    rows = [json.loads(line) for line in exact.read_text().splitlines()]
    assert {row["contender"] for row in rows} == {"jaxseq", "jaxseq scan"}
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    assert all(r["reason"] is None and r["max_err"] < 1e-2 for r in rows)
    (table,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    reasons = {r["contender"]: r["reason"] for r in rows if case_of(r).variant == ""}
    assert reasons.pop("cudnn") is not None
    assert set(reasons) == {"jaxseq", "jaxseq scan", "flax", "torch", AGAIN}
    assert set(reasons.values()) == {None}


def test_parts_of_the_gpu_check(tmp_path, monkeypatch):
    from benchmarks import gpu_check

    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    *_, tests = gpu_check.parts(tmp_path, dry=False)
    # conftest would leave the GPU the CPU's path, and flags of quick compilation
    assert tests.name == "tests" and tests.env["XLA_FLAGS"] == ""
    assert tests.env[gpu_check.PLATFORM] == "cuda,cpu"
    ends = {"exact": "exit code 1", "table": "done", "tests": "done"}
    monkeypatch.setattr(gpu_check, "run_part", lambda part, *_: ends[part.name])
    args = ["check-gpu", "--dry-run", "--results", str(tmp_path)]
    assert main(args) == 1
    ends["exact"] = "done"
    assert main(args) == 0


def test_a_part_that_hangs_is_stopped(tmp_path):
    from benchmarks.gpu_check import Part, run_part

    sleep = shutil.which("sleep")
    assert sleep is not None
    part = Part("sleep", 0.2, [sleep, "60"], {})
    assert "stopped at its limit" in run_part(part, 0.2, tmp_path / "log", True)
    part = Part("fails", 9, [sys.executable, "-c", "raise SystemExit(3)"], {})
    assert run_part(part, 9, tmp_path / "log", True) == "exit code 3"
    assert (tmp_path / "log").read_text().count("===") == 2


def test_profile_counts_what_a_kernel_spends_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSEQ_NATIVE", "0")  # whose call is a single kernel
    from benchmarks.profile import busy, kind, own_times

    events = [("while.1", 0, 10), ("ynn_fusion.2", 1, 5), ("add_fusion", 6, 8)]
    kernels = sorted(own_times(events), key=lambda k: k.start)
    assert [k.own for k in kernels] == [4, 4, 2]
    assert busy(kernels[1:]) == 6
    names = [kind(n) for n in ("while.1", "dot.3", "add_fusion", "copy.4")]
    assert names == ["control", "product", "arithmetic", "copy"]

    args = "--cases tiny --ops lstm --modes gradient --shapes 3,5,4,6 --calls 1"
    args = [*args.split(), "--results"]
    assert main(["profile", *args, str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    row = json.loads(path.read_text())
    assert case_of(row) == Case("lstm", "gradient", *SHAPE)
    assert row["kernels_per_step"] > 3
    assert 0 < row["us_product"] < 4 * row["us_per_step"]
