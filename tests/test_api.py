"""The public face: names, docstrings, examples, and what an import brings in."""

import doctest
import importlib
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

import jaxseq
import jaxseq.convert
import jaxseq.linen
import jaxseq.nn

ROOT = Path(__file__).parent.parent
CELLS = ["GRU", "LSTM", "RNN"]
PUBLIC = [getattr(jaxseq, name) for name in jaxseq.__all__ if name not in CELLS]
PACKAGES = [jaxseq, jaxseq.convert, jaxseq.nn, jaxseq.linen]
PUBLIC += [getattr(m, name) for m in PACKAGES[1:] for name in m.__all__]


@pytest.mark.parametrize("module", PACKAGES, ids=lambda m: m.__name__)
def test_names(module):
    """`__all__`, what there is, and the list that `help` shows are the same."""
    public = {name for name in dir(module) if not name.startswith("_")}
    public -= {name for name in public if inspect.ismodule(getattr(module, name))}
    assert len(module.__all__) == len(set(module.__all__))
    assert set(module.__all__) == public
    listed = re.findall(r"^ {4}(\w+(?:, \w+)*)$", module.__doc__, re.MULTILINE)
    names = [name for line in listed for name in line.split(", ")]
    assert sorted(names) == sorted(module.__all__)
    page = pydoc.plain(pydoc.render_doc(module))
    for name in module.__all__:
        assert re.search(rf"^    (class )?{name}\b[( ]", page, re.MULTILINE), name


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
        args = sections.get("Args", "")  # not there if there are none
        entries = re.findall(r"^ {4}(\w.*?):", args, re.MULTILINE)
        names = [name for entry in entries for name in entry.split(", ")]
        assert names == list(inspect.signature(thing).parameters)
        assert sections["Returns"].strip() and sections["Raises"].strip()


def no_star(signature):
    kinds = {p.kind for p in signature.parameters.values()}
    return not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


CLASSES = [n for n in jaxseq.nn.__all__ if inspect.isclass(getattr(jaxseq.nn, n))]


@pytest.mark.parametrize("name", CLASSES)
def test_help_shows_the_signatures_of_modules(name):
    module = getattr(jaxseq.nn, name)
    shown = list(inspect.signature(module).parameters)
    assert ["self", *shown] == list(inspect.signature(module.__init__).parameters)
    assert no_star(inspect.signature(module))
    for method, f in inspect.getmembers(module, inspect.isfunction):
        if f.__module__.startswith("jaxseq") and not method.startswith("_"):
            assert no_star(inspect.signature(f)), method


def test_a_module_has_the_signature_of_its_call():
    module = jaxseq.nn.GRU(2, 3, rngs=nnx.Rngs(0))
    assert inspect.signature(module) == inspect.signature(module.__call__)


NAMEDTUPLES = [thing for thing in PUBLIC if getattr(thing, "_fields", ())]


@pytest.mark.parametrize("kind", NAMEDTUPLES, ids=lambda kind: kind.__name__)
def test_help_shows_every_field(kind):
    fields = inspect.getdoc(kind).partition("\nFields:\n")[2]
    entries = re.findall(r"^ {4}(\w.*?):", fields, re.MULTILINE)
    assert entries == list(kind._fields)


MODULES = [m.name for m in pkgutil.walk_packages(jaxseq.__path__, "jaxseq.")]


@pytest.mark.parametrize("name", ["jaxseq", *MODULES])
def test_examples_in_docstrings(name):
    """They need the imports that `help` shows and no other."""
    (shown,) = [m for m in PACKAGES[1:] if name.startswith(m.__name__)] or [jaxseq]
    text = inspect.getdoc(shown) or ""
    imports = re.findall(r"^ {4}((?:import|from) .*)", text, re.MULTILINE)
    imported: dict[str, object] = {}
    exec("\n".join(imports), imported)
    jax.config.update("jax_enable_x64", False)  # as a user has it
    try:
        result = doctest.testmod(importlib.import_module(name), globs=imported)
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


@pytest.mark.parametrize("name", ["jaxseq.nn", "jaxseq.linen"])
def test_without_flax_an_import_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, name)
    message = rf"{name} needs Flax: pip install 'jaxseq\[nn\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        importlib.import_module(name)
