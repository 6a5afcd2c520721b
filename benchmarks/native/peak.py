"""The most that the processor and its memory can do, measured by loops in C++."""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors import UsageError
from jaxseq._kernels.cpu import compilers

HERE = Path(__file__).parent
SECONDS, ROUNDS = 0.3, 5
FAR_LARGER = 1 << 29  # bytes of an array of each thread that no cache holds
QUICK = 0.05  # seconds for an array of some other size


def peaks(threads: Iterable[int], seconds: float = SECONDS) -> dict[str, float]:
    """GFLOP/s of float32 by the number of threads, the best of some rounds."""
    with compiled("peak") as program:
        return {str(n): best(ROUNDS, program, n, seconds) for n in threads}


def bandwidths(
    threads: int,
    sizes: Iterable[int],
    largest: int = FAR_LARGER,
    seconds: float = SECONDS,
) -> tuple[dict[str, float], dict[int, float]]:
    """GB/s of all threads, each with an array of its own.

    First of arrays in memory, `read` and `write`; then of reading arrays of some
    numbers of bytes, which a cache may hold.
    """
    with compiled("bandwidth") as program:
        memory = {
            kind: best(2, program, kind, threads, largest, seconds)
            for kind in ("read", "write")
        }
        quick = min(seconds, QUICK)
        every = {n: best(3, program, "read", threads, n, quick) for n in sizes}
    return memory, every


@contextmanager
def compiled(name: str) -> Iterator[Path]:
    command = compilers.compiler()
    if command is None:
        raise UsageError("no C++ compiler was found to measure the peak rate")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        flags = "-O2 -march=native -ffp-contract=fast -pthread -std=c++17".split()
        source = str(HERE / f"{name}.cc")
        subprocess.run([*command, *flags, source, "-o", str(program)], check=True)
        yield program


def best(rounds: int, program: Path, *args: object) -> float:
    """The largest number that a program prints."""
    command = [str(program), *map(str, args)]
    once = lambda: subprocess.run(command, capture_output=True, check=True).stdout
    return max(float(once()) for _ in range(rounds))
