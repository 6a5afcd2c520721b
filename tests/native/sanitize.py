"""Builds the harness with the sanitizers of the compiler, and runs the cases by it.

python -m tests.native.sanitize [--every N] [--bytes 16 32 64] [--mutations N]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxseq._kernels.cpu import build, compilers
from tests.native.cases import write_all

HERE = Path(__file__).parent
FLAGS = "-std=c++17 -O1 -g1 -fno-strict-aliasing -fno-math-errno -Wno-psabi -pthread"
SANITIZERS = {
    "memory": ("address,undefined", "-fno-sanitize-recover=all"),
    "threads": ("thread",),
}
MARCH = {16: (), 32: ("-march=x86-64-v3",), 64: ("-march=x86-64-v4",)}


def compiled(kind: str, width: int, folder: Path, *options: str) -> Path:
    first, *others = SANITIZERS[kind]
    program = folder / f"{kind}-{width}"
    more = [f"-fsanitize={first}", *others, *options]
    more += ["-mavx512bf16"] * (width == 64 and "avx512_bf16" in flags())
    return built("harness.cc", width, program, more)


def built(source: str, width: int, program: Path, more: Sequence[str] = ()) -> Path:
    """A program with the kernel for vectors of a width."""
    compiler = compilers.compiler()
    if compiler is None:
        raise OSError("no C++ compiler was found")
    command = [*compiler, *FLAGS.split(), f"-DVECTOR_BYTES={width}", "-DNAME=kernel"]
    command += [*MARCH[width], *more, f"-I{build.HERE / 'src'}", f"-I{HERE}"]
    subprocess.run([*command, str(HERE / source), "-o", str(program)], check=True)
    return program


def checked(kind: str, program: Path, files: list[Path], mutations: int) -> str:
    """What it says; raises if a sanitizer or the program itself finds a fault."""
    mutations, calls = (mutations, 0) if kind == "memory" else (0, 2)
    command = [str(program), str(mutations), str(calls), *map(str, files)]
    # a wrong program may ask for more memory than there is, which is no fault of it
    environment = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(
            f"{kind}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}"
        )
    return ran.stdout.strip()


def widths() -> list[int]:
    """Those of the vectors that this processor has."""
    wide = [(32, "avx2"), (64, "avx512bw")]
    return [16, *(width for width, flag in wide if flag in flags())]


def flags() -> list[str]:
    """What the processor says that it has."""
    cpu = Path("/proc/cpuinfo")
    return cpu.read_text().split() if cpu.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--bytes", type=int, nargs="*", default=widths())
    parser.add_argument("--mutations", type=int, default=3000, metavar="N")
    options = parser.parse_args()
    if (limit := build.limit()) is not None:
        print(f"sanitize: {limit}", file=sys.stderr)
        sys.exit(2)
    jax.config.update("jax_enable_x64", True)
    with tempfile.TemporaryDirectory() as name:
        files = write_all(Path(name), options.every)
        for kind in SANITIZERS:
            for width in options.bytes:
                program = compiled(kind, width, Path(name))
                said = checked(kind, program, files, options.mutations)
                print(f"{kind}, vectors of {width} bytes: {said}")


if __name__ == "__main__":
    main()
