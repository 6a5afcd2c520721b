"""The networks of `benchmarks.serving` are the same, and it measures and reports."""

import argparse
import json

import jax
import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from benchmarks.serving import __main__ as command
from benchmarks.serving import networks


@pytest.fixture(scope="module")
def params():
    return networks.drawn()


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_networks_agree(params, name):
    pytest.importorskip(name)
    make = networks.NETWORKS[name]
    assert networks.errors(make, params) < 1e-6
    alone = lambda params, rows: networks.alone(make(params, rows))
    assert networks.errors(alone, params) < 1e-6
    other = {**params, "head": 1.01 * params["head"]}
    assert networks.errors(lambda _, rows: make(other, rows), params) > 1e-5


def test_latencies_and_their_table(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "SESSIONS", (1, 3))
    monkeypatch.setattr(command, "NAMES", ("jaxseq", "none"))
    measured = []

    def measure(*args):
        # one server is enough to see that they start and stop
        measured.append(real(*args) if not measured else {1: [1.0], 3: [2.0, 4.0]})
        return measured[-1]

    real = command.measure
    monkeypatch.setattr(command, "measure", measure)
    cores = [*command.os.sched_getaffinity(0)]
    options = argparse.Namespace(rounds=1, seconds=0.3, chars=4, cores=cores)
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    command.run(options, path, jax.devices("cpu")[0])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [("jaxseq", "together"), ("jaxseq", "alone"), ("none", "together")]
    assert [(r["contender"], r["steps"]) for r in rows[::2]] == kinds
    assert len(measured[0][3]) == rows[1]["count"] >= 3
    assert rows[1]["p50_ms"] == np.median(measured[0][3]) > 0
    assert rows[3]["p50_ms"] == 3.0 and rows[3]["p99_ms"] > 3.9
    page.write_text(f"before\n\n{command.MARK}\nold\n")
    command.report(path, page)
    text = page.read_text()
    assert text.startswith("before") and "old" not in text
    assert "| jaxseq | alone | 1.0 / 1.0 ms, 3 | 3.0 / 4.0 ms, 7 |" in text
