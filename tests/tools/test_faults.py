"""Faults on purpose: which are planted, and how the study of them ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.faults import __main__ as tool
from scripts.faults.kinds import choose, faults, shares

ROOT = Path(__file__).parents[2]

CELL = '''"""A cell, 1 + 1."""
SIZE: int = 4

def update(z: "1 + 1", state: tuple[int, 2], *, gain: float = 1.0) -> "not a":
    """Adds 1 and 2."""
    i, f = jnp.split(z, 2, axis=-1)  # σ
    assert len(z) == 2, "two"
    if z.ndim < 1:
        raise ValueError(f"at least {1 + 1}")
    new = jnp.where(mask, f * jax.nn.sigmoid(state) + i, state)
    return run(new, lengths=lengths, reverse=reverse)

def draw(key, cache):
    a, b = jax.random.split(key)
    return cache._replace(position=a), jax.lax.stop_gradient(b), ~keep
'''


def planted(source, kind):
    """Of each fault of a kind the line that it makes, in the order of the source."""
    found = [f for f in faults(source) if f.kind == kind]
    return [f.plant(source).splitlines()[f.line - 1].strip() for f in found]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("gates", "f, i = jnp.split(z, 2, axis=-1)  # σ"),
        ("argument", "i, f = jnp.split(z, 2, )  # σ"),
        ("shift", "i, f = jnp.split(z, 2, axis=-2)  # σ"),
        ("check", "if False:"),
        ("comparison", "if z.ndim <= 1:"),
        ("mask", "new = jnp.where(mask, state, f * jax.nn.sigmoid(state) + i)"),
        ("mask", "new = (f * jax.nn.sigmoid(state) + i)"),
        ("mask", "new = jnp.where(None, f * jax.nn.sigmoid(state) + i, state)"),
        ("term", "new = jnp.where(mask, (f * jax.nn.sigmoid(state)), state)"),
        ("function", "new = jnp.where(mask, f * jax.nn.tanh(state) + i, state)"),
        ("argument", "return run(new, lengths=None, reverse=reverse)"),
        ("reverse", "return run(new, lengths=lengths, reverse=not reverse)"),
        ("key", "a, b = ([key] * 2)"),
        ("stale", "return cache, jax.lax.stop_gradient(b), ~keep"),
        ("stale", "return cache._replace(position=a), b, ~keep"),
        ("mask", "return cache._replace(position=a), jax.lax.stop_gradient(b), keep"),
    ],
)
def test_each_kind_of_fault(kind, line):
    assert line in planted(CELL, kind)


def test_no_fault_where_no_test_could_notice_it():
    lines = CELL.splitlines()
    untouched = {n for n in (1, 2, 5, 7, 9)}  # texts, a constant, assertion, message
    for fault in faults(CELL):
        after = fault.plant(CELL).splitlines()
        assert not untouched & {
            n for n, line in enumerate(after, 1) if line != lines[n - 1]
        }
    annotated = [f.new for f in faults(CELL) if f.line == 4]
    assert annotated == ["2.0"]  # the default


def test_what_is_chosen_is_python():
    source = (ROOT / "jaxseq/_models/transformer/positions.py").read_text()
    for fault in choose(source, 1000, 0):
        compile(fault.plant(source), "", "exec")


def test_a_sample_is_fixed_and_spread():
    source = (ROOT / "jaxseq/_cells/lstm.py").read_text()
    chosen = choose(source, 12, 0)
    assert chosen == choose(source, 12, 0) != choose(source, 12, 1)
    assert len({f.kind for f in chosen}) >= 6
    assert len({f.function for f in chosen}) >= 4
    assert shares({"a": 10, "b": 30, "c": 0, "d": 1}, 8) == {"a": 2, "b": 5, "d": 1}


def test_the_tests_of_a_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    stems = lambda path: [t.stem for t in tool.tests_of(Path(path))]
    assert "test_decode" in stems("jaxseq/_search/beam.py")
    assert "test_decode" in stems("jaxseq/_search/step.py")  # behind beam_search
    assert "test_crf" in stems("jaxseq/_losses/crf/forward.py")
    heads = stems("jaxseq/_attention/heads.py")
    assert heads[0] == "test_attention" and "test_transformer" in heads
    model = stems("jaxseq/_models/seq2seq/decode.py")
    assert "test_seq2seq" in model and "test_decode" not in model
    assert stems("experiments/speech/audio.py") == ["test_speech"]
    assert "test_tagging" in stems("experiments/frame/buckets.py")  # which it uses
    for inside in tool.TESTS:
        assert Path("jaxseq", inside).with_suffix(".py").is_file()
    for path in tool.targets(Path("jaxseq")):
        assert tool.tests_of(path), path


def study(root, *options):
    command = [sys.executable, "-m", "scripts.faults", *options]
    paths = os.pathsep.join([str(root), str(ROOT)])
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env = {**os.environ, **quick, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "pairs").mkdir()
    source = "def first(a, b):\n    return a, b\n\ndef total(a, b):\n    return a + b\n"
    (tmp_path / "pairs/sums.py").write_text(source)
    (tmp_path / "tests").mkdir()
    test = (
        "from pairs import sums\n\n"
        "def test_first():\n    assert sums.first(1, 2)[0] == 1\n"
    )
    (tmp_path / "tests/test_pairs.py").write_text(test)
    return tmp_path


def test_a_study_ends_with_what_survived_and_goes_on(repository):
    test, source = repository / "tests/test_pairs.py", repository / "pairs/sums.py"
    before = source.read_text()
    code, out, err = study(repository, "pairs", "--count", "2", "--workers", "2")
    assert (code, err) == (1, "")
    assert "1 killed" in out and "1 survived" in out
    assert "-    return a + b" in out
    kept = repository / "runs/faults/verdicts.jsonl"
    verdicts = {
        v["function"]: v for v in map(json.loads, kept.read_text().splitlines())
    }
    assert verdicts["first"]["by"] == "tests/test_pairs.py::test_first"
    assert verdicts["total"]["verdict"] == "survived"

    # a test for the survivor, and it alone runs again
    test.write_text(
        test.read_text() + "\ndef test_total():\n    assert sums.total(2, 3) == 5\n"
    )
    code, out, _ = study(repository, "pairs", "--count", "2")
    assert code == 0 and "1 judged before" in out and "2 killed" in out
    assert len(kept.read_text().splitlines()) == 3
    assert source.read_text() == before


@pytest.mark.parametrize(("seconds", "verdict"), [("9", "killed"), ("0", "survived")])
def test_the_quickest_tests_alone_run_against_a_fault(repository, seconds, verdict):
    (repository / "tests/test_pairs.py").write_text(
        "import time\nfrom pairs import sums\n\n"
        "def test_slow():\n    time.sleep(0.2)\n    assert sums.first(1, 2)[0] == 1\n\n"
        "def test_quick():\n    assert sums.first\n"
    )
    (repository / "pairs/sums.py").write_text("def first(a, b):\n    return a, b\n")
    _, out, err = study(repository, "pairs/sums.py", "--seconds", seconds)
    assert err == "" and f"1 {verdict}" in out


def test_a_study_has_its_limits(repository):
    hangs = "def test_first():\n    while sums.first(1, 2)[0] != 1:\n        pass\n"
    (repository / "tests/test_pairs.py").write_text(
        "from pairs import sums\n\n" + hangs
    )
    (repository / "pairs/sums.py").write_text("def first(a, b):\n    return a, b\n")
    code, out, _ = study(repository, "pairs/sums.py", "--limit", "2")
    assert code == 0 and "1 timed out" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "nowhere: no file or folder"),
        (["pairs", "--count", "0"], "at least 1"),
        (["tests/test_pairs.py"], "no function"),
    ],
)
def test_wrong_input(repository, options, message):
    (repository / "tests/test_pairs.py").write_text("")
    code, _, err = study(repository, *options)
    assert code == 2 and message in err.splitlines()[-1]


def test_tests_that_fail_without_a_fault_are_wrong_input(repository):
    test = repository / "tests/test_pairs.py"
    test.write_text(test.read_text().replace("== 1", "== 2"))
    code, _, err = study(repository, "pairs")
    assert code == 2 and "tests/test_pairs.py fails without a fault" in err
