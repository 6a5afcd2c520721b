"""The notebooks run, warn of nothing, and what they say of their results is so."""

import os
import re
from copy import deepcopy

import pytest
from nbformat.v4 import new_code_cell, new_output

from scripts import notebooks

QUICK = "pytorch-to-jax-to-onnx"
# what the text says, of the names that a notebook leaves
CLAIMS = {
    "rnn-to-lstm": """
assert all((losses[name][-100:].mean() > 0.1) == ("RNN" in name) for name in networks)
assert left["RNN, uniform $W_h$", "before"][0] < 1e-12
assert left["LSTM, $b_f = 0$", "before"][0] < 1e-6
assert all(left[n, "after"][0] > 0.1 for n in networks if "LSTM" in n)
assert all(left[n, "after"][0] < 1e-3 for n in networks if "RNN" in n)
""",
    "text-generation": """
assert nats < 1.3 and cooled[0, 1] < 5 and cooled[-1, 0] < limited[-1, 0] < 90
by_temperature = np.interp(limited[3, 1], cooled[:, 1], cooled[:, 0])
assert limited[3, 0] > by_temperature
""",
    "attention-map": """
assert accuracy > 0.98
assert all(share > 0.6 for share in shares.values())
""",
    "memory-in-rl": """
assert all(final["GRU", N] > 90 for N in LENGTHS[:3])
assert all(40 < final["no memory", N] < 60 for N in LENGTHS)
""",
    "your-own-cell": """
assert np.abs(want - np.asarray(y64)).max() < 1e-12 and min(errors) < 1e-8
assert all(curve[-100:].mean() < 5 for curve in wrong.values())
""",
    "pytorch-to-jax-to-onnx": """
assert all(np.abs(y - exact)[valid].max() < 1e-6 for y in found.values())
assert np.abs(np.asarray(y64) - exact).max() < 1e-12
""",
}
long = pytest.mark.skipif(
    "JAXSEQ_TEST_NOTEBOOKS" not in os.environ,
    reason="JAXSEQ_TEST_NOTEBOOKS is not set, as make test-long does",
)
each = [pytest.param(n, marks=[] if n == QUICK else [long]) for n in CLAIMS]


@pytest.mark.parametrize("name", each)
def test_runs_and_what_it_says_is_so(name):
    notebook = notebooks.read(name)
    notebook.cells.append(new_code_cell(CLAIMS[name]))
    notebooks.execute(notebook)
    notebooks.normalize(notebook)
    assert notebooks.problems(notebook) == []


def test_every_notebook_has_claims():
    assert [*CLAIMS] and sorted(CLAIMS) == notebooks.names()


def test_all_are_as_they_were_written(capsys):
    assert notebooks.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", CLAIMS)
def test_form(name):
    cells = notebooks.read(name).cells
    code = [cell.source for cell in notebooks.code_cells(notebooks.read(name))]
    imported = set(re.findall(r"^(?:import|from) (\w+)", "\n".join(code), re.M))
    assert not imported & {"experiments", "examples", "scripts", "tests"}
    assert len(code) <= 13
    title, question, *_ = cells[0].source.split("\n\n")
    assert title.startswith("# ") and question.startswith("**") and "?" in question
    assert "## Exercises" in cells[-1].source
    exercises = cells[-1].source.partition("## Exercises\n\n")[2].splitlines()
    assert [line[:3] for line in exercises] == ["1. ", "2. ", "3. ", "4. "]


def test_the_readme_shows_every_notebook():
    page = (notebooks.FOLDER / "README.md").read_text(encoding="utf-8")
    for name in notebooks.names():
        assert f"]({name}.ipynb)" in page and f'"{name}.png"' in page


def test_what_readers_should_not_see():
    good = notebooks.read(QUICK)
    assert notebooks.problems(good) == []
    for output in (
        new_output("stream", name="stderr", text="UserWarning: old"),
        new_output("stream", name="stdout", text=f"{notebooks.ROOT}/a.py"),
        new_output("error", ename="ValueError", evalue="bad"),
        new_output("display_data", {"image/png": "A" * 200_000}),
    ):
        bad = deepcopy(good)
        notebooks.code_cells(bad)[0].outputs.append(output)
        assert len(notebooks.problems(bad)) == 1
    bad = deepcopy(good)
    notebooks.code_cells(bad)[1].execution_count = 7
    assert len(notebooks.problems(bad)) == 1
    bad = deepcopy(good)
    bad.cells[0].metadata["tags"] = ["old"]
    assert len(notebooks.unlike(QUICK, bad)) == 1


def test_printed_lines_are_one_output():
    def stream(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    streams = [stream("a\n"), stream("b\n"), stream("c\n", "stderr"), stream("d\n")]
    texts = [output.text for output in notebooks.joined(streams)]
    assert texts == ["a\nb\n", "c\n", "d\n"]


def test_a_notebook_that_is_not_there(capsys):
    assert notebooks.main(["no-such"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
