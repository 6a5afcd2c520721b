"""The library of the kernels, compiled by a compiler of the system or of a wheel.

This file imports nothing of jax, so that a wheel can be built where there is none.
"""

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "src"
FLAGS = (
    "-std=c++17 -O3 -g0 -fPIC -fno-strict-aliasing -fno-math-errno -fvisibility=hidden"
)
OURS = "-ffp-contract=fast -Wno-psabi"
LIMIT_S = 3600  # for one run of a compiler; Zig builds its own library first
OLDEST = "GCC 10, clang 12 or newer"
GLIBC = "2.27"  # with Zig, the oldest one that the library runs with; jaxlib's too
KERNELS: dict[str, tuple[str, ...]] = {"jaxseq_plain": ("-DVECTOR_BYTES=16",)}
# one by one: GCC 10 does not know -march=x86-64-v3, and Zig spells it otherwise
AVX2 = "-mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt -mmovbe"
AVX512 = "-mavx512f -mavx512dq -mavx512cd -mavx512bw -mavx512vl"
X86 = {
    "jaxseq_avx2": ("-DVECTOR_BYTES=32", *AVX2.split()),
    "jaxseq_avx512": (
        "-DVECTOR_BYTES=64",
        *f"{AVX2} {AVX512} -mprefer-vector-width=512".split(),
    ),
}
SOURCE = {"jaxseq_pairs": "pairs.cc"}  # of what is no whole kernel
X86["jaxseq_pairs"] = (*X86["jaxseq_avx512"], "-mavx512bf16")


class BuildError(OSError):
    """Why there is no library, and what the compiler said."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


def machine() -> str:
    """The processor, as compilers call it."""
    found = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(found, found)


def compiler() -> list[str] | None:
    """The command of a C++ compiler: CXX, g++, clang++, c++, or that of a wheel."""
    if named := os.environ.get("CXX"):
        try:
            first, *more = shlex.split(named)
        except ValueError:  # a quotation mark alone, or nothing but spaces
            return None
        found = shutil.which(first)
        return [os.path.abspath(found), *more] if found else None
    for name in ("g++", "clang++", "c++"):
        found = shutil.which(name)
        if found and not _asks(found):
            return [os.path.abspath(found)]
    return zig(machine()) if sys.platform == "linux" else None


def _asks(found: str) -> bool:
    """Whether it is what macOS has in the place of a compiler that is not installed.

    It would open a window that asks whether to install one.
    """
    if sys.platform != "darwin" or not found.startswith("/usr/bin/"):
        return False
    where = subprocess.run(["/usr/bin/xcode-select", "-p"], capture_output=True)
    return where.returncode != 0


def zig(target: str) -> list[str] | None:
    """Zig's compiler, from the PyPI package `ziglang`, for a processor with Linux."""
    for folder in sys.path:
        if (program := Path(folder, "ziglang", "zig").absolute()).exists():
            where = f"{target}-linux-gnu.{GLIBC}"
            return [str(program), "c++", "-target", where, "-s"]
    return None


def name_of(command: list[str]) -> str:
    """What a compiler is called in messages."""
    return " ".join([Path(command[0]).name, *command[1:]])


def kernels(target: str) -> dict[str, tuple[str, ...]]:
    """Each kernel's own flags: one for each set of instructions of a processor."""
    return KERNELS | (X86 if target == "x86_64" else {})


def build(command: list[str], include: str, path: Path, target: str) -> None:
    """Compiles the library into a file that is not there yet.

    Raises:
        BuildError: if a compiler fails, or cannot be run.
    """
    folder = path.parent
    base = [*command, *FLAGS.split()]
    jobs = {"module": [f"-isystem{include}", str(SOURCES / "module.cc"), "-DNDEBUG"]}
    for name, flags in kernels(target).items():
        own = *OURS.split(), f"-DNAME={name}", *flags
        jobs[name] = [*own, str(SOURCES / SOURCE.get(name, "kernel.cc"))]
    objects = [str(folder / f"{name}.o") for name in jobs]
    pairs = zip(jobs.values(), objects, strict=True)
    _run([[*base, *job, "-c", "-o", made] for job, made in pairs], folder)
    _run([[*base, "-shared", *objects, "-o", str(path)]], folder)


def _run(commands: list[list[str]], folder: Path) -> None:
    """Runs all at once; none of them is left when this ends."""
    running: list[subprocess.Popen[str]] = []
    how: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    how |= {"stdin": subprocess.DEVNULL, "cwd": folder, "errors": "replace"}
    how["process_group"] = 0  # of its own, for what a compiler starts ends with it
    caches = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    how["env"] = dict.fromkeys(caches, str(folder / "zig")) | os.environ
    try:
        for command in commands:
            running.append(subprocess.Popen(command, **how))
        for process in running:
            said, _ = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                text = f"{' '.join(map(str, process.args))}\n{said}"  # pyright: ignore
                raise BuildError(_reason(commands[0][0], process.returncode), text)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the compiler took more than {LIMIT_S} s") from error
    except BuildError:
        raise
    except OSError as error:
        raise BuildError(f"the compiler does not run: {error.strerror}") from error
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _reason(program: str, code: int) -> str:
    """Why the compiler failed, by its exit code or the signal that ended it."""
    name = Path(program).name
    if code > 0:
        return f"{name} failed ({code}); it has to be {OLDEST}"
    signals = {s.value: s.name for s in signal.Signals}
    return f"{name} was ended by signal {signals.get(-code, -code)}"
