"""Runs `python -m benchmarks real`."""

import argparse

from benchmarks.cases import Case
from benchmarks.device import find_device
from benchmarks.loop import measure_all
from benchmarks.real.cases import cases
from benchmarks.real.measure import measure
from benchmarks.rows import Row
from benchmarks.scan.cases import PLAIN


def run(options: argparse.Namespace) -> int:
    """Returns for how many models `jaxseq.scan` was not right."""
    device = find_device(options.device)
    tell = lambda line: print(f"    {line}", flush=True)

    def rows(case: Case) -> list[Row]:
        return measure(case, device, options.steps, options.rounds, tell)

    asked = cases(options.models, options.size)
    guess = lambda case: seconds(case, options.steps)
    return measure_all(options, device, asked, rows, seconds=guess, base=PLAIN)


def seconds(case: Case, steps: int) -> float:
    """A rough guess, most of it for the steps that are compared."""
    return 20 + 4e-9 * steps * case.B * case.T * (case.D + case.H) * case.H
