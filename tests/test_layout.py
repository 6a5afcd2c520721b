"""Which part of the library may import which, read from its source."""

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# What the files of each package may import of the library, beside their own package: a
# whole package, or one file of it. "jaxseq" is the public face, which lies in
# no package. A package may have its row before it is there.
MAY_IMPORT = {
    "_base": "",
    "_engine": "_base",
    "_kernels": "_base _engine.chain _engine.mesh _engine.products _engine.step"
    " _engine.recall _engine.steps _engine.types",
    "_cells": "_base _engine.door _engine.params _engine.widths",
    "_scan": "_base _engine.alone _engine.chain _engine.mesh _engine.native"
    " _engine.products _engine.rule _engine.step _engine.steps _engine.types"
    " _engine.update _engine.work",
    "_compose": "_base",
    "_attention": "_base",
    "_search": "_base",
    "_losses": "_base",
    "_models": "_base _attention _compose _cells _scan.scan",
    "_files": "_base",
    "native": "_kernels",  # a command
    "nn": "_base jaxseq",
    "linen": "_base jaxseq",
    "convert": "_base jaxseq",
    "jaxseq": "_base _engine _cells _scan _compose _attention _search _losses _models"
    " _files",
}
# what a file or package may import too, but inside a function only
LATE = {
    "_engine.backends": "_kernels",
    "_engine.native": "_kernels",
    "_files": "jaxseq convert numpy",  # which is there where jax is
    "convert": "google numpy onnx",
}
# what is installed with the library's extras; jax may be imported by all
OUTSIDE = {"nn": "flax", "linen": "flax"}


class Import(NamedTuple):
    user: str  # the file, as a module
    module: str  # the file that is imported, or a module from outside
    name: str | None  # what is taken from it
    late: bool  # inside a function


def read() -> dict[str, str]:
    """The source of each file, by its path."""
    files = sorted((ROOT / "jaxseq").rglob("*.py"))
    return {f.relative_to(ROOT).as_posix(): f.read_text() for f in files}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def part(module: str) -> str:
    """The package of a module of the library, as the table names it."""
    inside = module.split(".")[1:]
    if not inside:
        return "jaxseq"
    return inside[0]


@cache
def imports_of(path: str, source: str, modules: frozenset[str]) -> list[Import]:
    user = module_of(path)
    package = user if path.endswith("/__init__.py") else user.rpartition(".")[0]
    found, bound = [], {}  # and which name stands for which module

    def add(dotted: str, late: bool) -> None:
        """Its longest beginning that is a file of the library, and the name after."""
        parts = dotted.split(".")
        for n in range(len(parts), 0, -1):
            module = ".".join(parts[:n])
            if module in modules:
                found.append(Import(user, module, (*parts[n:], None)[0], late))
                return
        found.append(Import(user, dotted, None, late))

    def visit(node: ast.AST, late: bool) -> None:
        late = late or isinstance(node, ast.FunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, late)
                first = alias.name.partition(".")[0]
                bound[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level]
            parts = [*(above if node.level else []), *filter(None, [node.module])]
            for alias in node.names:
                dotted = ".".join([*parts, alias.name])
                add(dotted, late)
                bound[alias.asname or alias.name] = dotted
        elif isinstance(node, ast.Attribute):
            names, root = [], node
            while isinstance(root, ast.Attribute):
                names, root = [root.attr, *names], root.value
            if isinstance(root, ast.Name) and bound.get(root.id) in modules:
                add(".".join([bound[root.id], *names]), late)
        for child in ast.iter_child_nodes(node):
            visit(child, late)

    visit(ast.parse(source), False)
    return found


@cache
def defined(source: str) -> set[str]:
    """The names that a file itself gives to something, at its top."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names


def late_of(i: Import) -> list[str]:
    """What the table lets this import take where it stands, inside a function."""
    users = part(i.user), i.user.removeprefix("jaxseq.")
    return [w for name in users for w in LATE.get(name, "").split() if i.late]


def problem(i: Import, sources: dict[str, str]) -> str | None:
    own, late = part(i.user), late_of(i)
    first, _, inside = i.module.partition(".")
    if first != "jaxseq":
        known = sys.stdlib_module_names - {"importlib"}
        may = {"jax", *known, *OUTSIDE.get(own, "").split(), *late}
        return None if first in may else f"may not import {first}"
    may = {own, *MAY_IMPORT.get(own, "").split(), *late}
    if not may & {part(i.module), inside}:
        return f"may not import {inside or 'jaxseq'}"
    if i.name is None or i.name.startswith("__"):
        return None
    if i.name.startswith("_"):
        return f"takes {i.name} of {inside}"
    if inside and i.name not in defined(sources[i.module]):
        return f"takes {i.name} of {inside}, which only imports it"
    return None


def all_imports(files: dict[str, str]) -> list[Import]:
    modules = frozenset(map(module_of, files))
    return [i for path in files for i in imports_of(path, files[path], modules)]


def problems(files: dict[str, str]) -> list[str]:
    sources = {module_of(path): source for path, source in files.items()}
    imports = all_imports(files)
    texts = {f"{i.user} {text}" for i in imports if (text := problem(i, sources))}
    graph: dict[str, set[str]] = {}
    for i in imports:
        if part(i.module) not in late_of(i):  # which runs when all is imported
            graph.setdefault(i.user, set()).add(i.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        texts.add(f"a cycle: {' <- '.join(e.args[1])}")
    return sorted(texts)


FILES = read()


def test_imports_go_one_way():
    assert problems(FILES) == []


def test_every_file_and_every_import_is_seen():
    packages = {part(module_of(path)) for path in FILES}
    assert packages <= set(MAY_IMPORT)
    assert packages >= {"jaxseq", "_base", "_attention", "_search", "_models", "nn"}
    imports = all_imports(FILES)
    for path, source in FILES.items():
        seen = {i.module for i in imports if i.user == module_of(path)}
        # each statement, found in another way
        code = re.sub(r'""".*?"""', "", source, flags=re.DOTALL)
        said = set(re.findall(r"^ *(?:from|import) ([\w.]+)", code, re.MULTILINE))
        for name in said:
            assert any(f"{m}.".startswith(f"{name}.") for m in seen), (path, name)


# every package of the table, with a file to import and a file to plant an import in
NAMES = "__init__ planted user backends door plain steps".split()
PACKAGES = [package for package in MAY_IMPORT if package != "jaxseq"]
TREE = {f"jaxseq/{p}/{name}.py": "" for p in PACKAGES for name in NAMES} | FILES


def planted(path: str, source: str) -> list[str]:
    return problems({**TREE, path: f"{TREE[path]}\n{source}\n"})


@pytest.mark.parametrize("own", PACKAGES)
def test_each_import_that_the_table_does_not_allow(own):
    for other in PACKAGES:
        found = planted(f"jaxseq/{own}/user.py", f"import jaxseq.{other}.planted")
        allowed = other == own or other in MAY_IMPORT[own].split()
        message = f"jaxseq.{own}.user may not import {other}.planted"
        assert found == ([] if allowed else [message])


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        # all the ways to import
        ("_base/check", "from jaxseq._search.beam import beam_search", "_search.beam"),
        ("_base/check", "from .._search.beam import beam_search", "_search.beam"),
        ("_base/check", "from .. import _search", "_search"),
        ("_base/check", "import jaxseq._search.beam as b", "_search.beam"),
        ("_base/check", "def f():\n    import jaxseq._search.beam", "_search.beam"),
        ("_base/check", "if 1:\n    from jaxseq import _search", "_search"),
        ("nn/_attention", "jaxseq._search.beam.beam_search", "_search.beam"),
        ("_base/check", "import jaxseq", "jaxseq"),
        ("_base/check", "from jaxseq import greedy", "jaxseq"),
        ("__init__", "import jaxseq.nn", "nn"),
        # what is no part of the library
        ("_base/check", "import jax, numpy", "numpy"),
        ("_base/check", "from flax import nnx", "flax"),
        ("_base/check", "import importlib", "importlib"),
        # single files, and imports that have to be late
        ("_cells/user", "from jaxseq._engine import plain", "_engine.plain"),
        ("_kernels/user", "from jaxseq._engine import plain", "_engine.plain"),
        ("_engine/user", "def f():\n    import jaxseq._kernels", "_kernels"),
        ("_engine/backends", "import jaxseq._kernels", "_kernels"),
        ("convert/user", "import numpy", "numpy"),
        ("_files/user", "import jaxseq", "jaxseq"),
    ],
)
def test_what_may_not_be_imported(path, source, message):
    user = module_of(f"jaxseq/{path}.py")
    found = planted(f"jaxseq/{path}.py", source)
    assert f"{user} may not import {message}" in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("_cells/user", "from jaxseq._engine import door"),
        ("_kernels/user", "from jaxseq._engine import steps"),
        ("_engine/backends", "def f():\n    import jaxseq._kernels.user"),
        ("convert/user", "def f():\n    import numpy, jax"),
        ("_files/user", "def f():\n    import jaxseq.convert, numpy"),
        ("nn/_attention", "from flax import nnx; jaxseq.name"),
    ],
)
def test_what_may_be_imported(path, source):
    assert planted(f"jaxseq/{path}.py", source) == []


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        (
            "_search/beam",
            "from jaxseq._search.sample import _limited",
            "jaxseq._search.beam takes _limited of _search.sample",
        ),
        (
            "_search/beam",
            "from jaxseq._search import sample\nsample._limited",
            "jaxseq._search.beam takes _limited of _search.sample",
        ),
        (
            "_search/beam",
            "from jaxseq._search.sample import Decoded",
            "jaxseq._search.beam takes Decoded of _search.sample, "
            "which only imports it",
        ),
        (
            "_search/beam",
            "from jaxseq._search.sample import *",
            "jaxseq._search.beam takes * of _search.sample, which only imports it",
        ),
        ("_search/step", "import jaxseq._search.beam", "a cycle: "),
    ],
)
def test_what_may_not_be_taken(path, source, message):
    found = planted(f"jaxseq/{path}.py", source)
    assert len(found) == 1 and found[0].startswith(message)
