"""The most that the processor can do, measured by a loop in C++."""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.errors import UsageError
from jaxseq._kernels.cpu import compilers

SOURCE = Path(__file__).with_name("peak.cc")
SECONDS, ROUNDS = 0.3, 5


def peaks(threads: Iterable[int], seconds: float = SECONDS) -> dict[str, float]:
    """GFLOP/s of float32 by the number of threads, the best of some rounds."""
    command = compilers.compiler()
    if command is None:
        raise UsageError("no C++ compiler was found, which measures the peak rate")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        flags = "-O2 -march=native -ffp-contract=fast -pthread -std=c++17".split()
        subprocess.run([*command, *flags, str(SOURCE), "-o", str(program)], check=True)

        def once(n: int) -> float:
            asked = [str(program), str(n), str(seconds)]
            return float(subprocess.run(asked, capture_output=True, check=True).stdout)

        return {str(n): max(once(n) for _ in range(ROUNDS)) for n in threads}
