"""The public face: names, docstrings, examples, and what an import brings in."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxseq
import jaxseq.nn

ROOT = Path(__file__).parent.parent
NAMES = [name for name in dir(jaxseq) if not name.startswith("_") and name != "nn"]
CELLS = ["GRU", "LSTM", "RNN"]
PUBLIC = [getattr(jaxseq, name) for name in NAMES if name not in CELLS]
MODULES_OF_NN = [name for name in dir(jaxseq.nn) if not name.startswith("_")]
PUBLIC += [getattr(jaxseq.nn, name) for name in MODULES_OF_NN]


def test_names():
    cells = [
        f"{cell}{suffix}"
        for cell in ("rnn", "lstm", "gru", "cell")
        for suffix in ("", "_init", "_step", "_zeros")
    ]
    types = ["RNNParams", "LSTMParams", "LSTMState", "GRUParams"]
    types += ["Cell", "CellParams"]
    others = ["bidirectional", "resets_from_dones", "stack"]
    others += ["cell_states", "lstm_states"]
    kinds = ("additive", "dot", "general", "multi_head")
    others += [f"{kind}_attention" for kind in kinds]
    others += ["additive_init", "multi_head_init"]
    others += ["beam_search", "greedy", "prefill", "sample"]
    others += ["cross_entropy", "perplexity"]
    others += ["crf_decode", "crf_init", "crf_log_partition", "crf_score"]
    others += ["ctc_beam_search", "ctc_greedy"]
    parts = ("init", "encode", "decode", "decode_step")
    others += [f"{m}_{p}" for m in ("seq2seq", "transformer") for p in parts]
    others += ["transformer_zeros"]
    types += ["AdditiveParams", "Decoded", "Dot", "MultiHeadParams", "ScaledDot"]
    types += ["CRFParams"]
    types += ["BahdanauParams", "BridgeParams", "LuongParams", "Memory"]
    types += ["Seq2SeqParams", "Seq2SeqState"]
    types += ["Cache", "NormParams", "Rotary", "Sinusoidal", "TransformerLayer"]
    types += ["TransformerParams", "TransformerStack", "TransformerState"]
    assert sorted(NAMES) == sorted([*cells, *types, *others, *CELLS])


def test_built_in_cells():
    assert jaxseq.LSTM.init is jaxseq.lstm_init and jaxseq.GRU.zeros is jaxseq.gru_zeros
    for name in CELLS:
        assert isinstance(getattr(jaxseq, name), jaxseq.Cell)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_docstring_has_every_argument_and_no_other(thing):
    doc = inspect.getdoc(thing)
    assert doc
    if inspect.isfunction(thing) and not thing.__name__.endswith("_zeros"):
        sections = re.findall(r"^(\w+):\n((?:\n| .*\n?)+)", doc, re.MULTILINE)
        sections = dict(sections)
        entries = re.findall(r"^ {4}(\w.*?):", sections["Args"], re.MULTILINE)
        names = ", ".join(entries).split(", ")
        assert names == list(inspect.signature(thing).parameters)
        assert sections["Returns"].strip() and sections["Raises"].strip()


MODULES = [m.name for m in pkgutil.walk_packages(jaxseq.__path__, "jaxseq.")]


@pytest.mark.parametrize("name", ["jaxseq", *MODULES])
def test_examples_in_docstrings(name):
    jax.config.update("jax_enable_x64", False)  # as a user has it
    try:
        result = doctest.testmod(importlib.import_module(name))
    finally:
        jax.config.update("jax_enable_x64", True)
    assert result.failed == 0


def test_imports_only_jax():
    code = (
        "import jax, sys; before = set(sys.modules); import jaxseq; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert set(done.stdout.split()) - {"jax"} == {"jaxseq"}, done.stderr
