"""What the package says of itself, and the files that its distributions carry."""

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import jaxseq

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def files(*folders):
    """The files of folders of the checkout, but for what Python leaves there."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    names = {p.relative_to(ROOT).as_posix() for p in paths if p.is_file()}
    return {name for name in names if "__pycache__" not in name}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution and the wheel, made as an installer makes them."""
    build = pytest.importorskip("hatchling.build")
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = [make(str(folder)) for make in (build.build_sdist, build.build_wheel)]
    return [folder / name for name in made]


def test_files_of_the_source_distribution(distributions):
    sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive if m.isfile()}
    tests = files("tests") - files("tests/experiments", "tests/networks", "tests/tools")
    top = {"README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "pyproject.toml"}
    top.add("hatch_build.py")
    made = {"PKG-INFO", ".gitignore"}
    assert names == files("jaxseq", "docs", "examples") | tests | top | made


def test_files_of_the_wheel(distributions):
    _, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"jaxseq-{jaxseq.__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL")}
    assert names == files("jaxseq") | about | {f"{info}/licenses/LICENSE"}
    assert "jaxseq/py.typed" in names


def test_a_wheel_with_the_native_engine(tmp_path, monkeypatch):
    """By a compiler that writes nothing of use; `make wheels` has a real one."""
    build = pytest.importorskip("hatchling.build")
    compiler = tmp_path / "cxx"
    compiler.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho > "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("JAXSEQ_WHEEL", "native")
    monkeypatch.chdir(ROOT)
    (needed,) = build.get_requires_for_build_wheel()
    assert f"jax>={needed.removeprefix('jaxlib==')}" in PROJECT["dependencies"]
    assert build.get_requires_for_build_sdist() == []
    name = build.build_wheel(str(tmp_path))
    assert "-py3-none-" in name and not name.endswith("-any.whl")
    with zipfile.ZipFile(tmp_path / name) as archive:
        names = {n for n in archive.namelist() if ".dist-info" not in n}
    assert names == files("jaxseq") | {"jaxseq/_kernels/cpu/native.so"}


def test_a_wheel_for_another_processor(tmp_path, monkeypatch):
    """By a Zig that writes what it is asked for into the library."""
    build = pytest.importorskip("hatchling.build")
    (tmp_path / "ziglang").mkdir()
    zig = tmp_path / "ziglang" / "zig"
    zig.write_text(
        '#!/bin/sh\na="$*"\nwhile [ "$1" != -o ]; do shift; done\necho "$a" > "$2"\n'
    )
    zig.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JAXSEQ_WHEEL", "aarch64")
    monkeypatch.chdir(ROOT)
    needed = build.get_requires_for_build_wheel()
    assert needed[1:] == PROJECT["optional-dependencies"]["native"]
    name = build.build_wheel(str(tmp_path))
    assert name.endswith("-py3-none-manylinux_2_27_aarch64.whl")
    with zipfile.ZipFile(tmp_path / name) as archive:
        line = archive.read("jaxseq/_kernels/cpu/native.so").decode()
    assert "-target aarch64-linux-gnu.2.27" in line and "avx" not in line
    monkeypatch.setenv("JAXSEQ_WHEEL", "pdp11")
    with pytest.raises(RuntimeError, match="expected native, x86_64 or aarch64, got"):
        build.build_wheel(str(tmp_path))


def test_metadata(distributions):
    _, wheel = distributions
    info = f"jaxseq-{jaxseq.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{info}/METADATA").decode()
    head, _, body = text.partition("\n\n")
    assert "License-Expression: Apache-2.0" in head and "Author: " in head
    assert body.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_only_jax_is_required():
    (requirement,) = PROJECT["dependencies"]
    assert requirement.startswith("jax>=")


def test_who_only_lints_needs_no_torch():
    extras = PROJECT["optional-dependencies"]

    def installed(extra):
        for requirement in extras[extra]:
            if within := re.fullmatch(r"jaxseq\[(.*)\]", requirement):
                for other in within[1].split(","):
                    yield from installed(other)
            else:
                yield re.findall(r"[\w-]+", requirement)[0]

    assert {"pyright", "ruff", "flax"} <= set(installed("lint"))
    assert not {"torch", "keras"} & set(installed("lint"))
    assert {"torch", *installed("lint"), *installed("test")} <= set(installed("dev"))


def test_citation():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # what version 1.2.0 of the format requires
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["type"] == "software" and citation["license"] == PROJECT["license"]
    assert citation["version"] == jaxseq.__version__
    known = {"cff-version", "message", "type", "title", "version", "license", "authors"}
    assert set(citation) <= known | {"abstract", "keywords", "date-released"}
    assert PROJECT["description"] == citation["abstract"].rstrip(".")
