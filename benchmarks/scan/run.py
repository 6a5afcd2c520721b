"""Runs `python -m benchmarks scan`."""

import argparse
from functools import cache

from benchmarks.cases import Case
from benchmarks.device import find_device
from benchmarks.errors import UsageError
from benchmarks.loop import measure_all
from benchmarks.rows import Row
from benchmarks.scan.cases import BLOCKS, PLAIN, cases
from benchmarks.scan.measure import exact, measure
from benchmarks.timing import rounds_s


def run(options: argparse.Namespace) -> int:
    """Returns in how many cases `jaxseq.scan` was not right."""
    for *_, H in options.shapes:
        if H % BLOCKS:
            raise UsageError(f"--shapes: H has to be a multiple of {BLOCKS}, got {H}")
    device = find_device(options.device)
    once = cache(exact)

    def rows(case: Case) -> list[Row]:
        found = measure(case, device, options.rounds, once(case.op))
        if found[0]["same"]:
            print("    both scans are the same program")
        return found

    asked = cases(options.bodies, options.shapes, options.modes)
    guess = lambda case: seconds(case, options.rounds)
    return measure_all(options, device, asked, rows, seconds=guess, base=PLAIN)


def seconds(case: Case, rounds: int) -> float:
    """A rough guess: three contenders compiled, checked, and timed in turns."""
    more = 3 if case.mode == "gradient" else 1
    call = more * 8 * case.B * case.T * (case.D + case.H) * case.H / 1e11
    call *= 2 if case.op == "two LSTM layers" else 1
    return 4 * more + 6 * call + rounds_s(3, call, rounds)
