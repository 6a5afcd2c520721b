"""The library of the kernels: the one in the package, or one that is built once."""

import ctypes
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax

from jaxseq._base.told import log
from jaxseq._kernels.cpu import compilers
from jaxseq._kernels.cpu.interface import damage, refusal

SWITCH = "JAXSEQ_NATIVE"  # 0: never
OFF = "0", "false", "no", "off"  # all mean 0
CACHE = "JAXSEQ_CACHE"  # a folder for what is built
HERE = Path(__file__).parent
PACKAGED = HERE / "native.so"  # in wheels for Linux
AGAIN = "`python -m jaxseq.native build` tries again"


def _sources() -> list[Path]:
    return [f for f in sorted(compilers.SOURCES.glob("*")) if f.is_file()]


def _hash(files: list[Path], about: str = "") -> str:
    parts = [*(f.read_bytes() for f in files), about.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


# An executable that was saved names them. It holds programs in the instructions of the
# library that it was compiled for, and must not be run by another one.
_OWN = _hash(_sources())[:8]
TARGET = f"jaxseq_native_forward_{_OWN}"
GRADIENTS = f"jaxseq_native_gradients_{_OWN}"
MEMBERS = f"jaxseq_native_members_{_OWN}"  # of some with weights of their own


def switch() -> str | None:
    value = os.environ.get(SWITCH)
    return "0" if value is not None and value.lower() in OFF else value


@cache
def limit() -> str | None:
    """Why there is no library, after one has been looked for and built; or None."""
    try:
        return _registered(found())
    except OSError as error:
        return f"there is no native engine here: {error}"


def why_not() -> str | None:
    """As `limit`, but for what a user has turned off."""
    return f"{SWITCH} is 0" if switch() == "0" else limit()


def _registered(path: Path) -> str | None:
    """Loads a library, and tells JAX of what it has; or says why it cannot."""
    if (reason := damage(path)) is not None:
        return reason
    try:
        library = ctypes.CDLL(str(path))
        if (reason := refusal(library)) is not None:
            return reason
        handlers = {
            TARGET: jax.ffi.pycapsule(library.JaxseqForward),
            GRADIENTS: jax.ffi.pycapsule(library.JaxseqGradients),
            MEMBERS: jax.ffi.pycapsule(library.JaxseqMembers),
        }
    except (OSError, AttributeError) as error:
        # so says the loader where the file system is mounted with noexec
        away = f"; set {CACHE} to a folder from which programs may run"
        text = away * ("failed to map segment" in str(error))
        return f"the library of native kernels cannot be loaded: {error}{text}"
    try:
        for name, handler in handlers.items():
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except Exception as error:  # of jaxlib, of several kinds
        return f"JAX does not take the library of native kernels: {error}"
    return None


def found() -> Path:
    """The library: the package's, one that was built here, or else one built now."""
    if PACKAGED.exists():
        return PACKAGED
    path = cached()
    return path if path.exists() else built(path)


def is_built() -> bool:
    """Whether there is a library; it may still be one that cannot be loaded."""
    try:
        return PACKAGED.exists() or cached().exists()
    except OSError:
        return False


def cached() -> Path:
    """Where a library for these sources, this processor and XLA's headers lies."""
    return _folder() / f"native-{_version()}.so"


def _folder() -> Path:
    try:
        if named := os.environ.get(CACHE):  # compilers run in another folder
            return Path(named).expanduser().absolute()
        if named := os.environ.get("XDG_CACHE_HOME"):
            return Path(named).expanduser().absolute() / "jaxseq"
        return Path.home() / ".cache" / "jaxseq"
    except RuntimeError as error:
        raise OSError(f"there is no home folder to build it in; set {CACHE}") from error


def _version() -> str:
    if not compilers.SOURCES.is_dir():
        raise OSError(f"its sources are not files here, in {compilers.SOURCES}")
    files = [*_sources(), *sorted(Path(jax.ffi.include_dir()).rglob("*.h"))]
    # a folder may be that of several machines, each with a C library of its own
    about: tuple[str, ...] = compilers.machine(), sys.platform, *platform.libc_ver()
    about += compilers.FLAGS, compilers.OURS, str(compilers.kernels(about[0]))
    return _hash(files, repr(about))[:16]


def compiler(path: Path, again: bool = False) -> list[str]:
    """The command that would build a library; raises an OSError if none can."""
    if sys.platform not in ("linux", "darwin"):
        raise OSError(f"it is for Linux and macOS, and this is {sys.platform}")
    if not again:
        _refuse(path.with_suffix(".log"))
    command = compilers.compiler()
    if command is None:
        none = "no C++ compiler was found: install g++, clang++ or jaxseq[native]"
        named = os.environ.get("CXX")
        raise OSError(f"CXX is {named!r}, which is not found" if named else none)
    return command


def built(path: Path, again: bool = False) -> Path:
    """Builds the library, or waits for another process that does.

    A build that has failed is remembered beside it, and not tried anew unless `again`.
    """
    command, failed = compiler(path, again), path.with_suffix(".log")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if path.exists():
                return path
            if not again:
                _refuse(failed)  # by the process that this one has waited for
            return _built_alone(command, path, failed)
    except compilers.BuildError:
        raise
    except OSError as error:  # of the folder
        where = error.filename or path.parent
        raise OSError(f"{where}: {error.strerror}; set {CACHE}") from error


def _built_alone(command: list[str], path: Path, failed: Path) -> Path:
    for part in path.parent.glob(f"{path.stem}.*.part"):  # of a build that was killed
        shutil.rmtree(part, ignore_errors=True)
    # a name of its own, for compilers of that build may still be writing
    part = tempfile.mkdtemp(".part", f"{path.stem}.", path.parent)
    log.warning(
        "jaxseq: building its native CPU engine with %s, once, in up to a minute "
        "(%s=0: never)",
        compilers.name_of(command),
        SWITCH,
    )
    start = time.monotonic()
    try:
        made = Path(part, path.name)
        compilers.build(command, jax.ffi.include_dir(), made, compilers.machine())
        os.replace(made, path)
    except compilers.BuildError as error:
        text, said = f"{error}\n{error.log}", Path(part, failed.name)
        said.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(said, failed)  # whole, or not at all where the disk is full
        reason = f"{error}, see {failed}; {AGAIN}"
        raise _said(compilers.BuildError(reason)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    failed.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    log.info("jaxseq: built %s in %.0f s", path, seconds)
    return path


def _refuse(failed: Path) -> None:
    if failed.exists():
        raise compilers.BuildError(f"a build has failed, see {failed}; {AGAIN}")


def _said(error: OSError) -> OSError:
    log.warning("jaxseq: no native CPU engine, layers run without it: %s", error)
    return error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time, and free once that has ended, however it did."""
    import fcntl  # which Windows does not have

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("jaxseq: another process builds its native CPU engine, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
