"""Where the native engine is built: folders, compilers and systems of many kinds."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from jaxseq._kernels.cpu import build, compilers
from tests.native.python import python

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="it is not built here"
)
LOOK = build.limit.__wrapped__

# writes what it is asked for, and a line for each call into a file beside itself
WRITES = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ "$1" != -o ]; do shift; done
echo "no library" > "$2"
"""
# stays until it is killed, the first time
WAITS = """#!/bin/sh
(set -C; echo $$ > "$(dirname "$0")/waited") 2> /dev/null && exec sleep 600
while [ "$1" != -o ]; do shift; done
echo "no library" > "$2"
"""


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch, tmp_path):
    """No library in the package, and an empty cache."""
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "none.so")
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)


def script(path, text=WRITES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_folder_with_spaces_and_letters_of_all_kinds(monkeypatch, tmp_path):
    monkeypatch.setenv(build.CACHE, str(tmp_path / "Käfer und Würmer" / "キャッシュ"))
    monkeypatch.setenv("CXX", f"'{script(tmp_path / 'my bin' / 'c++')}' -O0")
    assert build.built(build.cached()).read_text() == "no library\n"
    calls = (tmp_path / "my bin" / "calls").read_text().splitlines()
    assert all(line.startswith("-O0 ") for line in calls) and calls


def test_a_relative_folder_and_a_relative_compiler(monkeypatch, tmp_path):
    script(tmp_path / "bin" / "c++")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(build.CACHE, "here")
    monkeypatch.setenv("CXX", "bin/c++")
    assert build.built(build.cached()) == build.cached()
    assert build.cached().parent == tmp_path / "here"


def test_the_compiler_is_named_with_its_arguments(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", f"{script(tmp_path / 'ccache')} g++ -O1")
    build.built(build.cached())
    assert "with ccache g++ -O1, once" in caplog.text


@pytest.mark.parametrize("named", ["  ", "g++ '", "none-of-these"])
def test_a_compiler_that_is_no_command(monkeypatch, named):
    monkeypatch.setenv("CXX", named)
    assert f"CXX is {named!r}" in LOOK()


def test_a_read_only_folder_that_has_the_library(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", script(tmp_path / "bin" / "c++"))
    path = build.built(build.cached())
    path.with_suffix(".lock").unlink()
    monkeypatch.setattr(Path, "mkdir", None)  # root may write into any folder
    monkeypatch.setattr(build, "_locked", None)
    assert build.found() == path


def test_a_home_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", script(tmp_path / "bin" / "c++"))
    monkeypatch.delenv(build.CACHE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert "/proc/nobody" in LOOK() and "set JAXSEQ_CACHE" in LOOK()


def test_a_full_disk(monkeypatch, tmp_path, caplog):
    """The compiler fails for it, and then there is no room to say so either."""
    full = '#!/bin/sh\necho "No space left on device"; exit 1\n'
    monkeypatch.setenv("CXX", script(tmp_path / "c++", full))

    def write_text(self, *args, **options):
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        assert "No space left on device; set JAXSEQ_CACHE" in LOOK()
    # nor is it remembered as a fault of the compiler
    monkeypatch.setenv("CXX", script(tmp_path / "c++"))
    assert "is not a library" in LOOK()


def test_what_a_failing_compiler_says_may_be_any_bytes(monkeypatch, tmp_path):
    fails = b"#!/bin/sh\nprintf '\\377\\376'; exit 1\n".decode()
    monkeypatch.setenv("CXX", script(tmp_path / os.fsdecode(b"c\xff+"), fails))
    # pytest cannot send such a line from one of its processes to another
    monkeypatch.setattr(build.log, "disabled", True)
    assert "failed (1)" in LOOK()


def test_killed_in_the_middle(monkeypatch, tmp_path):
    """Compilers of a process that was killed cannot write into the next build."""
    monkeypatch.setenv("CXX", script(tmp_path / "bin" / "c++", WAITS))
    code = "from jaxseq._kernels.cpu import build; build.built(build.cached())"
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.DEVNULL,
    )
    waited = tmp_path / "bin" / "waited"
    try:
        while not waited.exists() or not waited.read_text():
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
        running.wait()
        (left,) = Path(os.environ[build.CACHE]).glob("*.part")
        path = build.built(build.cached())
        assert path.read_text() == "no library\n" and not left.exists()
        found = sorted(p.suffix for p in path.parent.iterdir())
        assert found == [".lock", ".so"]
    finally:
        os.kill(int(waited.read_text()), signal.SIGKILL)


def test_a_compiler_that_is_too_old(monkeypatch, tmp_path):
    old = """#!/bin/sh
echo "cc1plus: error: unrecognized command-line option '-std=c++17'"; exit 1
"""
    monkeypatch.setenv("CXX", script(tmp_path / "g++", old))
    assert "it has to be GCC 10, clang 12 or newer" in LOOK()
    assert "-std=c++17" in build.cached().with_suffix(".log").read_text()


def test_another_c_library_is_another_file(monkeypatch):
    """A folder may be shared by machines that have each their own."""
    here = build.cached()
    monkeypatch.setattr(build.platform, "libc_ver", lambda: ("glibc", "2.99"))
    assert build.cached() != here


def test_zig_is_found_without_running_python(monkeypatch, tmp_path):
    """In a frozen program, sys.executable is that program and not Python."""
    package = tmp_path / "ziglang"
    script(package / "zig")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "executable", None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    first, *more = compilers.compiler() or [""]
    assert first == str(package / "zig") and more[0] == "c++"
    (package / "zig").unlink()
    assert compilers.compiler() is None


@pytest.mark.parametrize("code, used", [(0, True), (2, False)])
def test_macos_is_not_made_to_ask_for_its_tools(monkeypatch, code, used):
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    assert compilers.compiler() == (["/usr/bin/g++"] if used else None)
    assert all(command[0] == "/usr/bin/xcode-select" for command in asked)


def test_from_an_archive(tmp_path):
    """As from a wheel on sys.path, whose sources are not files."""
    with zipfile.ZipFile(tmp_path / "jaxseq.whl", "w") as archive:
        for path in sorted((ROOT / "jaxseq").rglob("*")):
            if path.suffix in (".py", ".h", ".cc"):
                archive.write(path, path.relative_to(ROOT))
    code = """
import jax, jax.numpy as jnp, jaxseq
assert ".whl" in jaxseq.__file__, jaxseq.__file__
params = jaxseq.lstm_init(jax.random.key(0), 3, 4)
print(jaxseq.lstm(params, jnp.ones((2, 5, 3)))[1].shape)
try:
    jaxseq.lstm(params, jnp.ones((2, 5, 3)), implementation="native")
except ValueError as error:
    print(error)
"""
    own = {"PYTHONPATH": str(tmp_path / "jaxseq.whl"), "PYTHONSAFEPATH": "1"}
    said = python("-c", code, JAX_PLATFORMS="cpu", **own).stdout.splitlines()
    assert said[0] == "(2, 5, 4)" and "sources are not files" in said[1]
