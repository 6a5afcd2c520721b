"""The benchmarks turn wrong contenders away, fail clearly, and report what they write.

The command is run as users do, in a process of its own, since the flags of this one
(float64, strict promotion) are not those under which libraries are timed.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import report
from benchmarks.check import expected
from benchmarks.contenders import jaxseq as ours
from benchmarks.measure import measure
from benchmarks.prepare import compile_layer
from benchmarks.problem import draw, permute
from benchmarks.shapes import Shape

ROOT = Path(__file__).parent.parent
FIELDS = {
    *("op", "contender", "mode", "B", "T", "D", "H", "dtype", "compile_ms"),
    *("median_ms", "iqr_ms", "temp_mb", "max_err", "reason", "floor_ms"),
    *("matmul_gflops", "step_gflops", "device", "versions", "commit", "time"),
    *("rounds", "run"),
}


def command(*args):
    command = [sys.executable, "-m", "benchmarks", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def with_swapped_gates(calls):
    """jaxseq with r and z of the gru exchanged, that counts its calls."""

    def prepare(problem, mode, device):
        swapped = {n: permute(getattr(problem, n), (1, 0, 2)) for n in ("w_x", "b")}
        layer = ours.layer(problem._replace(**swapped))
        prepared = compile_layer(layer, problem, mode, device)

        def run():
            calls.append(mode)
            return prepared.run()

        return prepared._replace(run=run)

    return prepare


def with_wrong_gradient(problem, mode, device):
    """jaxseq with a gradient of b that is a little wrong, and the right output."""
    layer = ours.layer(problem)
    wrong = lambda g: {**g._asdict(), "b": np.asarray(g.b) * 1.01}
    return compile_layer(layer._replace(restore=wrong), problem, mode, device)


@pytest.mark.parametrize("mode", ["forward", "gradient"])
def test_wrong_contender_is_not_timed(mode):
    problem, calls = draw("gru", Shape(B=3, T=5, D=4, H=6)), []
    contenders = {
        "jaxseq": ours.prepare,
        "flax": with_swapped_gates(calls),
        "keras": with_wrong_gradient,
    }
    want, device = expected(problem, mode), jax.devices("cpu")[0]
    right, swapped, wrong = measure(problem, mode, want, contenders, device, 1)
    assert right["median_ms"] > 0 and right["max_err"] < 1e-5
    assert swapped["median_ms"] is None and swapped["max_err"] > 1e-2
    assert "off by" in swapped["reason"] and calls == []
    assert (wrong["median_ms"] is None) == (mode == "gradient")


def absent_platform():
    for name in ("tpu", "gpu"):
        try:
            jax.devices(name)
        except RuntimeError:
            return name
    pytest.skip("every platform is here")


@pytest.mark.parametrize(
    "args",
    [
        ("--platform", "absent"),
        ("--ops", "lstm,mgu"),
        ("--shapes", "1,2,3"),
        ("--rounds", "0"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line(args, tmp_path):
    name, value = args
    if value == "absent":
        value = absent_platform()
    done = command(name, value, "--results", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and name[2:] in done.stderr
    assert not any(tmp_path.iterdir())


def test_rows_and_report(tmp_path):
    few = ("--contenders", "jaxseq,flax", "--ops", "rnn", "--rounds", 2)
    done = command(*few, "--shapes", "256,32,32,32", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["contender"], row["mode"]) for row in rows] == [
        *(("jaxseq", "forward"), ("flax", "forward")),
        *(("jaxseq", "gradient"), ("flax", "gradient")),
    ]
    for row in rows:
        assert set(row) == FIELDS
        assert row["median_ms"] > 0 and row["compile_ms"] > 0
        assert row["max_err"] < 1e-4 and row["rounds"] == 2

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
    report.report(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and "| rnn | gradient | 256,32,32,32 |" in text
    assert f"({path.stem}.png)" in text
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_every_contender_is_checked(tmp_path):
    """All weight layouts are right, and Haiku's other equations are turned away."""
    few = ("--shapes", "256,32,32,32", "--modes", "gradient", "--rounds", 1)
    done = command(*few, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    refused = {
        (r["op"], r["contender"]): r["reason"] for r in rows if r["median_ms"] is None
    }
    assert set(refused) == {("rnn", "haiku"), ("gru", "haiku"), ("rnn", "equinox")}
    assert all("other numbers" in r for (_, n), r in refused.items() if n == "haiku")


def test_profile_counts_what_a_kernel_spends_once(tmp_path):
    from benchmarks.profile import busy, kind, own_times

    events = [("while.1", 0, 10), ("ynn_fusion.2", 1, 5), ("add_fusion", 6, 8)]
    kernels = sorted(own_times(events), key=lambda k: k.start)
    assert [k.own for k in kernels] == [4, 4, 2]
    assert busy(kernels[1:]) == 6
    names = [kind(n) for n in ("while.1", "dot.3", "add_fusion", "copy.4")]
    assert names == ["control", "product", "arithmetic", "copy"]

    args = "--ops lstm --modes gradient --shapes 256,32,32,32 --calls 1 --results"
    command = [sys.executable, "-m", "benchmarks.profile", *args.split(), tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = tmp_path.iterdir()
    row = json.loads(path.read_text())
    assert row["kernels_per_step"] > 3
    assert 0 < row["us_product"] < 4 * row["us_per_step"]
