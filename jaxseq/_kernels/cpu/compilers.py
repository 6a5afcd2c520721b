"""The library of the kernels, compiled by a compiler of the system or of a wheel.

This file imports nothing of jax, so that a wheel can be built where there is none.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "src"
FLAGS = (
    "-std=c++17 -O3 -g0 -fPIC -fno-strict-aliasing -fno-math-errno -fvisibility=hidden"
)
OURS = "-ffp-contract=fast -Wno-psabi"
LIMIT_S = 3600  # for one run of a compiler; Zig builds its own library first
GLIBC = "2.27"  # with Zig, the oldest one that the library runs with; jaxlib's too
KERNELS: dict[str, tuple[str, ...]] = {"jaxseq_plain": ("-DVECTOR_BYTES=16",)}
X86 = {
    "jaxseq_avx2": ("-DVECTOR_BYTES=32", "-march=x86-64-v3"),
    "jaxseq_avx512": (
        "-DVECTOR_BYTES=64",
        "-march=x86-64-v4",
        "-mprefer-vector-width=512",
    ),
}


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
        first, *more = named.split()
        found = shutil.which(first)
        return [found, *more] if found else None
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    return zig(machine()) if sys.platform == "linux" else None


def zig(target: str) -> list[str] | None:
    """Zig's compiler, from the PyPI package `ziglang`, for a processor with Linux."""
    command = [sys.executable, "-m", "ziglang"]
    ran = subprocess.run([*command, "version"], capture_output=True)
    if ran.returncode:
        return None
    return [*command, "c++", "-target", f"{target}-linux-gnu.{GLIBC}"]


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
        own = *OURS.split(), f"-DNAME={name}", *_spelled(command, flags)
        jobs[name] = [*own, str(SOURCES / "kernel.cc")]
    objects = [str(folder / f"{name}.o") for name in jobs]
    pairs = zip(jobs.values(), objects, strict=True)
    _run([[*base, *job, "-c", "-o", made] for job, made in pairs], folder)
    _run([[*base, "-shared", *objects, "-o", str(path)]], folder)


def _spelled(command: list[str], flags: tuple[str, ...]) -> Iterator[str]:
    """Zig writes x86_64_v3 where the others write x86-64-v3, and has one width."""
    for flag in flags:
        if "ziglang" not in command:
            yield flag
        elif not flag.startswith("-mprefer"):
            before, march, name = flag.partition("-march=")
            yield before + march + name.replace("-", "_")


def _run(commands: list[list[str]], folder: Path) -> None:
    """Runs all at once; none of them is left when this ends."""
    running: list[subprocess.Popen[str]] = []
    how: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    how |= {"stdin": subprocess.DEVNULL, "cwd": folder, "errors": "replace"}
    caches = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    how["env"] = dict.fromkeys(caches, str(folder / "zig")) | os.environ
    try:
        for command in commands:
            running.append(subprocess.Popen(command, **how))
        for process in running:
            said, _ = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                text = f"{' '.join(map(str, process.args))}\n{said}"  # pyright: ignore
                name = Path(commands[0][0]).name
                raise BuildError(f"{name} failed ({process.returncode})", text)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the compiler took more than {LIMIT_S} s") from error
    except BuildError:
        raise
    except OSError as error:
        raise BuildError(f"the compiler does not run: {error.strerror}") from error
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()
