"""Builds the distributions and tries them: `make release-check`.

Each row of its table is an environment of its own, made with one Python, in which the
wheel or the source distribution was installed with one extra or with none. There

- the installed packages fit each other, as `pip check` has it,
- every module is imported, with its warnings as errors,
- the first example of docs/files.md runs, and where Flax is installed that of README,
- the tests in the source distribution pass, some of each, with the extra `test`.

Dependencies are the newest that there are or, in rows of "oldest", the oldest that
pyproject.toml allows. If nothing failed, the distributions are put into dist/.
Exit codes: 0 if all is well, 1 if not, 2 for wrong input.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
VERSIONS = "3.11", "3.12", "3.13", "3.14"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:|#)([^)\s]+)\)")
NEEDS_FLAX = "nn", "linen"
LEFT = ".* __pycache__ dist runs".split()  # but for .gitignore

# in an environment: imports all of the library
IMPORTS = f"""
import importlib.util, pkgutil, warnings
warnings.filterwarnings("error", module="jaxseq")
import jaxseq
flax = importlib.util.find_spec("flax") is not None
assert "site-packages" in jaxseq.__file__, jaxseq.__file__
for found in pkgutil.walk_packages(jaxseq.__path__, "jaxseq.", onerror=lambda _: None):
    try:
        __import__(found.name)
    except ModuleNotFoundError as error:
        ok = not flax and found.name.split(".")[1] in {NEEDS_FLAX}
        assert ok and "pip install 'jaxseq[nn]'" in str(error), found.name
"""


class Failed(Exception):
    pass


class Case(NamedTuple):
    python: str
    kind: str  # of the distribution
    extra: str  # or nothing
    age: str  # of the dependencies

    @property
    def tests(self) -> bool:
        return self.kind == "sdist" and self.extra == "test"


class Tools(NamedTuple):
    """An environment that has build, twine and uv."""

    folder: Path

    def run(self, *command: str | Path) -> str:
        return run([self.folder / "bin" / command[0], *command[1:]])


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """What a command says; raises that if it fails."""
    own = {name: a for name, a in os.environ.items() if name != "PYTHONPATH"}
    one = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ran = subprocess.run(list(map(str, command)), cwd=cwd, env=own, check=False, **one)
    if ran.returncode:
        shown = " ".join(map(str, command))[:200]
        raise Failed(f"{shown}\n{ran.stdout.strip()}")
    return ran.stdout


def pythons() -> Iterator[str]:
    """The interpreters here; the shims of pyenv are there for those not in use too."""
    for version in VERSIONS:
        own = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
        for python in (f"python{version}", *map(str, own)):
            if shutil.which(python) and version_of(python).startswith(version):
                yield python
                break


def version_of(python: str) -> str:
    code = "import platform, venv; print(platform.python_version())"
    try:
        return run([python, "-c", code]).strip()
    except (Failed, OSError):
        return ""


def absolute(page: str, address: str, tag: str) -> str:
    """The page with links that lead to a repository, for a place where it is alone."""

    def link(found: re.Match[str]) -> str:
        image, text, path = found.groups()
        return f"{image}{text}({address}/{'raw' if image else 'blob'}/{tag}/{path})"

    parts = re.split(r"(```.*?```)", page, flags=re.DOTALL)  # every other one is code
    return "".join(p if i % 2 else LINK.sub(link, p) for i, p in enumerate(parts))


def build(
    tools: Tools, folder: Path, address: str | None, tag: str | None
) -> dict[str, Path]:
    """The wheel, made of the source distribution, and that, by their kinds."""
    source, dist = folder / "source", folder / "dist"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT))
    shutil.copy(ROOT / ".gitignore", source)
    if address:
        page = source / "README.md"
        text = absolute(page.read_text(encoding="utf-8"), address, tag or "HEAD")
        page.write_text(text, encoding="utf-8")
    said = tools.run("python", "-m", "build", "--outdir", dist, source)
    warnings = [line for line in said.splitlines() if "warning" in line.lower()]
    if warnings:
        raise Failed("\n".join(["build warns:", *warnings]))
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    if tag and f"-{tag.removeprefix('v')}.tar.gz" not in sdist.name:
        raise Failed(f"--tag {tag}: the version in jaxseq/__init__.py is another")
    tools.run("twine", "--no-color", "check", "--strict", sdist, wheel)
    return {"sdist": sdist, "wheel": wheel}


def cases(found: list[str], extras: list[str]) -> Iterator[Case]:
    for python in found:
        for extra in ["", *extras]:
            yield Case(python, "wheel", extra, "newest")
        yield Case(python, "sdist", "", "newest")
        if "test" in extras:
            yield Case(python, "sdist", "test", "newest")
    for extra in ["", *(e for e in ("nn", "onnx", "serving") if e in extras)]:
        yield Case(found[0], "wheel", extra, "oldest")
    if "test" in extras:
        yield Case(found[0], "sdist", "test", "oldest")


def tried(case: Case, tools: Tools, file: Path, folder: Path, tests: list[str]) -> str:
    """The versions that were installed, and what the tests said, if all went well."""
    env, here = folder / "env", folder / "here"
    here.mkdir()
    python = env / "bin" / "python"
    tools.run("uv", "venv", "--quiet", "--python", case.python, env)
    install = "uv", "pip", "install", "--quiet", "--python", python
    if case.age == "oldest":
        extra = ["--extra", case.extra] * bool(case.extra)
        oldest = "--resolution", "lowest-direct"
        tools.run(*install, *oldest, "--requirements", ROOT / "pyproject.toml", *extra)
    what = f"jaxseq[{case.extra}] @ {file.as_uri()}" if case.extra else str(file)
    more = ["optax"] if case.extra == "nn" else []  # as README says
    tools.run(*install, what, *more)
    tools.run("uv", "pip", "check", "--python", python)
    run([python, "-c", IMPORTS], here)
    installed = tools.run("uv", "pip", "freeze", "--python", python)
    rows = dict(re.findall(r"^([\w-]+)==(.*)$", installed, re.MULTILINE))
    pages = ["docs/files.md"] + ["README.md"] * ("flax" in rows and "optax" in rows)
    for page in pages:
        code = BLOCK.search((ROOT / page).read_text(encoding="utf-8"))
        run([python, "-c", code[1] if code else "raise SystemExit(1)"], here)
    said = [f"{name} {rows[name]}" for name in ("jax", "flax") if name in rows]
    if case.tests:
        with tarfile.open(file) as archive:
            archive.extractall(here, filter="data")
        (source,) = here.iterdir()
        if case.age == "oldest":  # of which some use what is deprecated by now
            tests = [*tests, "-W", "default::DeprecationWarning"]
        out = run([python, "-m", "pytest", "-q", "-n", "auto", *tests], source)
        said.append(out.strip().splitlines()[-1].strip("= "))
    return ", ".join(said)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def options() -> argparse.Namespace:
    parser = Parser(prog="check_release", description="Builds a release and tries it.")
    add = parser.add_argument
    add("--python", action="append", help="an interpreter; all those found, if none")
    add("--extras", help="some of them, with commas between, to be quicker")
    add("--tests", default="tests --every 40", help="those to run, as pytest has it")
    add("--tag", help="of the release, such as v0.2.0, to be compared with the version")
    add("--address", help="of the repository, to which README's links are to lead")
    given = parser.parse_args()
    given.extras = list(EXTRAS) if given.extras is None else given.extras.split(",")
    given.extras = [extra for extra in given.extras if extra]
    for extra in given.extras:
        if extra not in EXTRAS:
            parser.error(f"--extras: expected some of {', '.join(EXTRAS)}, got {extra}")
    for python in given.python or []:
        if not version_of(python).startswith(VERSIONS):
            parser.error(f"--python: expected Python 3.11 or newer, got {python}")
    given.python = given.python or list(pythons())
    if not given.python:
        parser.error("--python: expected an interpreter, found none")
    return given


def main() -> int:
    given = options()
    tests, failures = given.tests.split(), []
    with tempfile.TemporaryDirectory(prefix="jaxseq-release-") as folder:
        tools = Tools(Path(folder, "tools"))
        try:
            run([ROOT / "scripts" / "make-venv", given.python[0], tools.folder])
            tools.run("pip", "install", "--quiet", "build", "twine", "uv")
            files = build(tools, Path(folder), given.address, given.tag)
        except Failed as failed:
            print(f"check_release: {failed}", file=sys.stderr)
            return 1
        print("built, without a warning:", *(file.name for file in files.values()))
        row = "{:8} {:6} {:12} {:7} {:>5}  {}"
        print(row.format("Python", "from", "extra", "needs", "s", "result"))
        for case in cases(given.python, given.extras):
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="jaxseq-release-") as own:
                try:
                    result = tried(case, tools, files[case.kind], Path(own), tests)
                except Failed as failed:
                    result, failures = "FAILED", [*failures, f"{case}\n{failed}\n"]
            seconds = f"{time.monotonic() - start:.0f}"
            shown = version_of(case.python), case.kind, case.extra or "none", case.age
            print(row.format(*shown, seconds, result), flush=True)
            if result == "FAILED":  # the rows to come may take an hour
                print(failures[-1], file=sys.stderr, flush=True)
        if not failures:
            dist = ROOT / "dist"
            dist.mkdir(exist_ok=True)
            for old in dist.glob("jaxseq-*"):
                old.unlink()
            print("\nput into dist:", *(shutil.copy(f, dist) for f in files.values()))
    if failures:
        print(f"check_release: {len(failures)} rows failed", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
