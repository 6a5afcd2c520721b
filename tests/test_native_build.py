"""Building the native engine: compilers, folders and libraries of every bad kind."""

import logging
import os
import shutil
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest

import jaxseq
from jaxseq import native
from jaxseq._kernels.cpu import build, compilers
from tests.native.python import python

pytestmark = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="it is not built here"
)
LOOK = build.limit.__wrapped__


def limit() -> str:
    """Why there is no library, looked for anew each time."""
    return LOOK() or ""


# writes what it is asked for, and a line for each call into a file beside itself
WRITES = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ "$1" != -o ]; do shift; done
echo "no library" > "$2"
"""
FAILS = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
echo "kernel.cc:1: not in a mood"
exit 3
"""


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch, tmp_path):
    """No library in the package, and an empty cache."""
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "none.so")
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Puts a script in the place of the compiler; gives the calls so far."""
    script = tmp_path / "bin" / "cxx"
    script.parent.mkdir()

    def put(text):
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(script))
        calls = script.with_name("calls")
        return lambda: calls.read_text().splitlines() if calls.exists() else []

    return put


def links(calls):
    return [line for line in calls() if "-shared" in line]


def files():
    return sorted(path.suffix for path in Path(os.environ[build.CACHE]).iterdir())


def test_one_message_and_it_is_not_for_stdout(compiler, caplog, capfd):
    compiler(WRITES)
    build.built(build.cached())
    (record,) = caplog.records
    assert record.name == "jaxseq" and record.levelno == logging.WARNING
    assert "JAXSEQ_NATIVE=0" in record.getMessage() and "cxx" in record.getMessage()
    assert capfd.readouterr().out == ""


def test_a_failing_compiler_is_asked_once(compiler, caplog):
    calls = compiler(FAILS)
    reason = limit()
    assert "cxx failed (3)" in reason and "tries again" in reason
    asked = len(calls())
    assert asked and not links(calls)
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    (log,) = Path(os.environ[build.CACHE]).glob("*.log")
    assert "not in a mood" in log.read_text() and str(log) in reason
    assert str(log) in limit() and len(calls()) == asked  # in a later process
    assert files() == [".lock", ".log"]
    # until it is asked for
    with pytest.raises(OSError, match="cxx failed"):
        build.built(build.cached(), again=True)
    assert len(calls()) > asked
    compiler(WRITES)
    build.built(build.cached(), again=True)
    assert files() == [".lock", ".so"]


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_compiler_that_is_killed(compiler, name):
    compiler(f"#!/bin/sh\nkill -{name} $$\n")
    reason = limit()
    assert f"cxx was ended by signal SIG{name}, see " in reason
    assert "tries again" in reason and "it has to be" not in reason


def test_a_broken_library_is_a_sentence_and_not_built_again(compiler):
    calls = compiler(WRITES)
    assert "is not a library for this kind of machine" in limit()
    assert "is not a library for this kind of machine" in limit()
    assert len(links(calls)) == 1


def test_several_processes_build_one(compiler):
    calls = compiler(WRITES)
    with ThreadPoolExecutor(6) as pool:  # each opens the lock anew, as processes do
        found = {*pool.map(lambda _: build.built(build.cached()), range(6))}
    assert found == {build.cached()} and len(links(calls)) == 1


def test_several_processes_see_one_failure(compiler):
    calls = compiler(FAILS)
    with ThreadPoolExecutor(6) as pool:
        reasons = [*pool.map(lambda _: limit(), range(6))]
    assert all("failed" in reason for reason in reasons)
    assert len([line for line in calls() if "module.cc" in line]) == 1


def test_an_interrupted_build_leaves_nothing(compiler, monkeypatch):
    compiler(WRITES)

    def interrupted(command, include, path, target):
        path.write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compilers, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            limit()
    assert files() == [".lock"]
    # nor does one that was killed stand in the way
    part = build.cached().with_suffix(".1234.part")
    part.mkdir()
    (part / "module.o").write_text("half of it")
    build.built(build.cached())
    assert files() == [".lock", ".so"]


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers, "zig", lambda target: None)
    assert "no C++ compiler was found" in limit()
    monkeypatch.setenv("CXX", "g++-of-nobody -O1")
    assert "CXX is 'g++-of-nobody -O1'" in limit()


def test_the_compiler_of_a_wheel_is_the_last_that_is_tried(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilers, "zig", lambda target: ["zig", target])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compilers.compiler() == ["zig", compilers.machine()]
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert compilers.compiler() == ["/bin/g++"]


def test_a_compiler_that_does_not_run(monkeypatch, tmp_path):
    script = tmp_path / "g++"
    script.write_text("#!/of/nothing\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert "does not run" in limit()


@pytest.mark.parametrize("folder", ["file/cache", "/proc/jaxseq"])
def test_a_cache_that_cannot_be_written(folder, compiler, monkeypatch, tmp_path):
    compiler(WRITES)
    (tmp_path / "file").touch()
    monkeypatch.setenv(build.CACHE, str(tmp_path / folder))
    assert "set JAXSEQ_CACHE" in limit()


def test_no_home(compiler, monkeypatch):
    compiler(WRITES)
    monkeypatch.delenv(build.CACHE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert "no home folder" in limit() and "set JAXSEQ_CACHE" in limit()


def test_other_platforms(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Linux and macOS" in limit()


@pytest.mark.skipif(compilers.compiler() is None, reason="no compiler")
def test_other_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    assert "failed" in limit()
    assert "xla/ffi/api/ffi.h" in build.cached().with_suffix(".log").read_text()


def test_the_library_of_the_package_is_first(compiler, monkeypatch, tmp_path):
    calls = compiler(WRITES)
    packaged = tmp_path / "native.so"
    packaged.write_text("of another processor")
    monkeypatch.setattr(build, "PACKAGED", packaged)
    assert f"{packaged} is not a library for this kind of machine" in limit()
    assert calls() == []


class Library:
    """What `ctypes` gives for one that has all that is looked for."""

    def __getattr__(self, name):
        return lambda: 0


def test_a_library_that_jax_refuses(compiler, monkeypatch):
    compiler(WRITES)

    def refuse(*args, **options):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: API version (1.0)")

    monkeypatch.setattr(build, "damage", lambda path: None)
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: Library())
    monkeypatch.setattr(jax.ffi, "pycapsule", lambda function: function)
    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    monkeypatch.setattr(build, "refusal", lambda library: None, raising=False)
    assert "JAX does not take the library" in limit()


def test_turned_off(monkeypatch):
    monkeypatch.setattr(build, "limit", lambda: None)
    assert jaxseq.native_available()
    monkeypatch.setenv(build.SWITCH, "0")
    assert not jaxseq.native_available()
    monkeypatch.delenv(build.SWITCH)
    monkeypatch.setattr(build, "limit", lambda: "the moon is full")
    assert not jaxseq.native_available()


def test_command(compiler, monkeypatch, capsys):
    monkeypatch.setattr(build, "limit", LOOK)
    calls = compiler(FAILS)
    assert native.main([]) == 1 and "not built yet: cxx" in capsys.readouterr().out
    with monkeypatch.context() as turned:
        turned.setenv("JAXSEQ_NATIVE", "0")
        assert native.main([]) == 1 and "JAXSEQ_NATIVE is 0" in capsys.readouterr().out
    assert calls() == []
    assert native.main(["build"]) == 1
    assert "not built: cxx failed" in capsys.readouterr().out
    compiler(WRITES)
    assert native.main(["build"]) == 1
    out = capsys.readouterr().out
    assert "built in" in out and "is not a library for this kind of machine" in out
    monkeypatch.setattr(build, "limit", lambda: None)
    assert native.main(["status"]) == 0
    assert f"available: {build.cached()}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        native.main(["demolish"])
    assert ended.value.code == 2


def test_layers_run_where_nothing_can_be_built(compiler):
    """In a process of its own, which says so once, on stderr."""
    compiler(FAILS)
    code = """
import jax, jax.numpy as jnp, jaxseq
params = jaxseq.lstm_init(jax.random.key(0), 3, 4)
for T in 5, 6:
    print(jaxseq.lstm(params, jnp.ones((2, T, 3)))[1].shape)
"""
    ran = python("-c", code, JAX_PLATFORMS="cpu")
    assert ran.stdout == "(2, 5, 4)\n(2, 6, 4)\n"
    said = [line for line in ran.stderr.splitlines() if line.startswith("jaxseq: ")]
    assert len(said) == 2 and "building" in said[0] and "failed" in said[1]


def test_status_says_that_nothing_can_build_it(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers, "zig", lambda target: None)
    assert native.main([]) == 1 and "no C++ compiler" in capsys.readouterr().out
    monkeypatch.setattr(sys, "platform", "win32")
    assert native.main([]) == 1 and "this is win32" in capsys.readouterr().out
